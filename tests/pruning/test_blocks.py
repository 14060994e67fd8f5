"""Whole blocks go: those whose input may stand for their output, the least missed first."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck import export, models, quantization
from limbeck.checkpoint import SPEC as SPEC_FILE
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.errors import ParamsError
from limbeck.models.skipping import residual, skip_, skipped
from limbeck.params import Params, PruneParams
from limbeck.prediction import predict
from limbeck.pruning import JUDGES, cut_spec, prune_
from limbeck.pruning.blocks import Blocks, Count, Judge
from limbeck.pruning.cutting import SLACK
from tests.conftest import Remembering
from tests.pruning.test_importances import prune_params
from tests.test_compression import samples, seasoned, spec_of

DEEP = spec_of(Component(use="resnet", width=8, depth=20))
SAMPLE = torch.from_numpy(samples(1))
TEXTS = Spec(
    model=Component.model_validate({"use": "text_transformer", "rows": 50, "width": 8, "depth": 3, "heads": 2, "hidden": 8}),
    shape=(6,), dtype="int32", classes=("a", "b", "c"), mean=(), std=(),
)  # fmt: skip
ALL = [f"blocks.{number}" for number in (0, 1, 2, 4, 5, 7, 8)]


def of_blocks(tiny: Params, **changes: Any) -> PruneParams:
    return prune_params(
        tiny, **{"use": "loss", "num_batches": 2, "scope": "block", "ratio": 0.5, "steps": 1, **changes}
    )


def losses_of(network: nn.Module) -> Iterator[Tensor]:
    x, y = torch.from_numpy(samples(16)), torch.arange(16) % 3
    for part, labels in zip(x.chunk(4), y.chunk(4), strict=True):
        yield nn.functional.cross_entropy(network(part), labels)


def test_blocks_that_change_the_shape_stay() -> None:
    assert residual(seasoned(DEEP).body) == ALL


def test_a_block_matters_as_much_as_the_loss_of_some_batches_rises_without_it(tiny: Params) -> None:
    network = seasoned(DEEP)
    names = residual(network.body)
    found = JUDGES["loss"](num_batches=2)(network, names, lambda: losses_of(network))
    assert residual(network.body) == names, "all are back"
    by_hand = []
    whole = sum(loss.item() for loss in islice(losses_of(network), 2)) / 2
    for name in names:
        without = models.build(DEEP.model_copy(update={"skipped": (name,)})).eval()
        without.load_state_dict(
            {key: value for key, value in network.state_dict().items() if not key.startswith(f"body.{name}.")}
        )
        by_hand.append(sum(loss.item() for loss in islice(losses_of(without), 2)) / 2 - whole)
    assert found == pytest.approx(by_hand)
    list(prune_(network, of_blocks(tiny, ratio=1 / 7), SAMPLE, losses=lambda: losses_of(network)))
    assert skipped(network.body) == (names[by_hand.index(min(by_hand))],)


def ranked(
    tiny: Params, judge: Judge, num: int, *, count: Count | None = None, report: Remembering | None = None
) -> list[str]:
    network = seasoned(DEEP)
    found = Blocks(network, judge, of_blocks(tiny), None, count, None, report).doomed(num / 7)
    assert residual(network.body) == ALL, "all are back"
    return found


def test_listed_blocks_go_in_their_order_whatever_they_save_and_the_others_after_them(tiny: Params) -> None:
    judge = JUDGES["listed"](blocks=("blocks.8", "blocks.1"))
    assert ranked(tiny, judge, 4, count=models.num_params) == ["blocks.8", "blocks.1", "blocks.0", "blocks.2"]


def test_a_listed_block_that_is_gone_already_is_passed_over(tiny: Params) -> None:
    network = seasoned(DEEP)
    judge = JUDGES["listed"](blocks=("blocks.8", "blocks.1"))
    skip_(network.body, ["blocks.8"])
    names = residual(network.body)
    assert names[int(np.argmin(judge(network, names, None)))] == "blocks.1"


def test_a_listed_block_that_is_none_is_refused_by_name(tiny: Params) -> None:
    judge = JUDGES["listed"](blocks=("blocks.1", "blocks.3", "stem"))
    with pytest.raises(
        ParamsError, match=r"prune\.blocks lists blocks\.3, stem; blocks .* may go are blocks\.0, blocks\.1"
    ):
        ranked(tiny, judge, 1)


def test_of_two_blocks_that_do_each_others_work_one_goes(tiny: Params) -> None:
    twins = ("blocks.1", "blocks.2")

    def judge(_: models.Network, names: list[str], __: object) -> list[float]:
        is_alone = not set(twins) <= set(names)
        return [(9.0 if is_alone else 0.0) if name in twins else 1.0 for name in names]

    assert ranked(tiny, judge, 3) == ["blocks.1", "blocks.0", "blocks.4"]


def test_a_killed_ranking_goes_on_where_it_was(tiny: Params, tmp_path: Path) -> None:
    lot = JUDGES["random"]()
    asked: list[int] = []

    def judge(network: models.Network, names: list[str], losses: Any) -> list[float]:
        asked.append(len(names))
        return lot(network, names, losses)

    ends, draws = [], []
    for num, report in (
        (3, Remembering(tmp_path / "straight")),
        (1, killed := Remembering(tmp_path / "killed")),
        (3, killed),
    ):
        torch.manual_seed(3)
        ends.append(ranked(tiny, judge, num, report=report))
        draws.append(torch.rand(3))  # what training would draw next
    assert ends[0] == ends[2]
    assert ends[1] == ends[0][:1]
    assert asked == [7, 6, 5, 7, 6, 5], "nothing is judged twice"
    assert killed.steps == [1, 2, 3]
    assert all(torch.equal(draws[0], others) for others in draws)


def test_a_block_the_network_does_better_without_goes_first_and_the_more_it_saves_the_sooner(tiny: Params) -> None:
    costs = dict.fromkeys(ALL, 1.0) | {"blocks.1": -1.0, "blocks.8": -1.0, "blocks.0": 0.01}

    def judge(_: models.Network, names: list[str], __: object) -> list[float]:
        return [costs[name] for name in names]

    assert ranked(tiny, judge, 3, count=models.num_params) == ["blocks.8", "blocks.1", "blocks.0"]


@settings(max_examples=10)
@given(ratio=st.floats(0.01, 0.9), steps=st.integers(1, 3))
def test_as_many_go_as_the_share_says_and_the_rest_keeps_its_names(tiny: Params, ratio: float, steps: int) -> None:
    network = seasoned(DEEP)
    *_, last = prune_(network, prune_params(tiny, use="random", scope="block", ratio=ratio, steps=steps), SAMPLE)
    assert len(skipped(network.body)) == min(math.floor(7 * 0.9), math.ceil(7 * ratio - SLACK))
    assert last.macs == models.count_macs(network, SAMPLE)
    assert set(network.state_dict()) <= set(seasoned(DEEP).state_dict())


@pytest.mark.parametrize("steps", [1, 3])
def test_a_budget_of_macs_takes_no_more_blocks_than_it_needs(tiny: Params, steps: int) -> None:
    network = seasoned(DEEP)
    whole = models.count_macs(network, SAMPLE)
    without = DEEP.model_copy(update={"skipped": tuple(residual(network.body)[:1])})
    each = whole - models.count_macs(models.build(without), SAMPLE)
    limit = whole - 3 * each + 1
    params = of_blocks(tiny, ratio=None, max_macs=limit, steps=steps)
    *_, last = prune_(network, params, SAMPLE, losses=lambda: losses_of(network))
    assert limit - each < last.macs <= limit


def test_a_budget_of_parameters_is_kept_by_the_blocks_that_matter_least_for_what_they_save(tiny: Params) -> None:
    network = seasoned(DEEP)
    limit = models.num_params(network) - 6000
    by_hand = seasoned(DEEP)
    while models.num_params(by_hand) > limit:
        names = residual(by_hand.body)
        saved = [models.num_params(by_hand.body.get_submodule(name)) for name in names]
        rises = JUDGES["loss"](num_batches=2)(by_hand, names, lambda: losses_of(by_hand))
        weighed = [rise / of if rise > 0 else rise * of for rise, of in zip(rises, saved, strict=True)]
        skip_(by_hand.body, [names[weighed.index(min(weighed))]])
    params = of_blocks(tiny, ratio=None, max_parameters=limit)
    list(prune_(network, params, SAMPLE, losses=lambda: losses_of(network)))
    assert skipped(network.body) == skipped(by_hand.body)


def test_a_network_without_some_comes_back_to_the_bit_through_every_stage(tmp_path: Path, tiny: Params) -> None:
    network, x = seasoned(DEEP), samples()
    list(prune_(network, of_blocks(tiny), SAMPLE, losses=lambda: losses_of(network)))
    spec = cut_spec(DEEP, network)
    assert len(spec.skipped) == 4
    models.save(tmp_path / "pruned", spec, network)
    again_spec, again = models.load(tmp_path / "pruned")
    assert again_spec.skipped == spec.skipped
    assert np.array_equal(predict(again, x), predict(network, x))

    list(prune_(again, prune_params(tiny, ratio=0.5), SAMPLE))  # narrower, too
    spec = cut_spec(again_spec, again)
    assert spec.cuts
    assert spec.skipped == again_spec.skipped
    models.save(tmp_path / "narrow", spec, again)
    spec, narrow = models.load(tmp_path / "narrow")
    described = quantization.describe("static", "u8s7", Component(use="mse"))
    prepared = quantization.prepare(narrow, described, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 8)
    quantization.save(tmp_path / "int8", spec.model_copy(update={"quantization": described}), prepared)
    _, int8 = quantization.load(tmp_path / "int8")
    export.to_onnx(tmp_path / "int8.onnx", int8, spec, 18, {})
    export.check_parity(tmp_path / "int8.onnx", int8, x, max_difference=None, min_equal=0.8)


def test_blocks_of_a_transformer_go_with_their_attention(tmp_path: Path, tiny: Params) -> None:
    torch.manual_seed(0)
    network = models.build(TEXTS).eval()
    codes = np.random.default_rng(0).integers(1, 50, (8, 6), dtype=np.int32)
    params = prune_params(tiny, use="random", scope="block", ratio=0.4, steps=1)
    list(prune_(network, params, torch.from_numpy(codes[:1])))
    spec = cut_spec(TEXTS, network)
    assert len(spec.skipped) == 2
    models.save(tmp_path / "m", spec, network)
    _, again = models.load(tmp_path / "m")
    assert np.array_equal(predict(again, codes), predict(network, codes))


def test_a_loss_that_owns_a_network_judges_every_block_by_an_equal_one() -> None:
    network = seasoned(DEEP)

    def drawing() -> Iterator[Tensor]:
        yield torch.rand(())

    names = residual(network.body)
    assert len(set(JUDGES["loss"](num_batches=1)(network, names, drawing))) == 1


def test_a_network_without_shortcuts_says_so(tiny: Params) -> None:
    network = seasoned(spec_of(Component(use="convnet", width=8, depth=2)))
    with pytest.raises(
        ParamsError, match=r"of the 0 blocks of this network that could be skipped are none. .*choose scope: layer"
    ):
        list(prune_(network, of_blocks(tiny), SAMPLE, losses=lambda: losses_of(network)))


def test_macs_that_no_depth_reaches_say_how_shallow_it_gets(tiny: Params) -> None:
    network = seasoned(DEEP)
    with pytest.raises(
        ParamsError, match=r"10 MACs; the shallowest this network gets with at most 0.9 of its 7 blocks gone is"
    ):
        list(
            prune_(
                network,
                of_blocks(tiny, ratio=None, max_macs=10, max_ratio=0.9),
                SAMPLE,
                losses=lambda: losses_of(network),
            )
        )


def test_a_checkpoint_that_skips_nothing_is_written_as_it_was_before_there_were_any(tmp_path: Path) -> None:
    models.save(tmp_path, DEEP, seasoned(DEEP))
    assert "skipped" not in (tmp_path / SPEC_FILE).read_text(encoding="utf-8")

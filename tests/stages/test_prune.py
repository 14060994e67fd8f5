"""The prune stage: what it writes for each aim, and that a kill costs no measurement twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from limbeck import labels, models, stopwatch
from limbeck.checkpoint import Cut, Spec, digest_of
from limbeck.components import Component
from limbeck.data.splits import read_meta
from limbeck.errors import DeviceError
from limbeck.params import Instructions, LatencyParams, Params, PruneParams
from limbeck.stopwatch import Stopwatch
from stages import prune
from tests.conftest import Remembering

measured: list[float] = []
"""What the device below was shown, in kB."""


def by_size(
    files: dict[str, Path],
    threads: int,
    batch_size: int,
    measure: Any,
    progress: Callable[..., None],
    *,
    breaks_after: int,
) -> dict[str, Any]:
    """A device on which a file takes a microsecond for each of its bytes, and that breaks after so many files."""
    if len(measured) >= breaks_after:
        raise KeyboardInterrupt
    (file,) = files.values()
    measured.append(file.stat().st_size / 1000)
    p95 = {"value": measured[-1], "low": 0.9 * measured[-1], "high": measured[-1]}
    return {"variants": {name: {"p95_ms": p95} for name in files}}


def device(breaks_after: int = 1000) -> Component:
    return Component.model_validate({"use": f"{__name__}:by_size", "breaks_after": breaks_after})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny: Params) -> Path:
    """A folder with `student`, hardly a network, and `labels`, which it made itself."""
    folder, meta = tmp_path_factory.mktemp("made"), read_meta(data)
    spec = Spec(
        model=Component.model_validate({"use": "convnet", "width": 16, "depth": 2}), shape=meta.shape, dtype=meta.dtype,
        classes=meta.classes, mean=(40.0,), std=(50.0,),
    )  # fmt: skip
    torch.manual_seed(0)
    network = models.build(spec)
    models.save(folder / "student", spec, network)
    labels.write(
        folder / "labels", data, network, tiny.label, seed=0, teacher_digest="0" * 64, teacher_quality=0.1,
        progress=lambda *_: None,
    )  # fmt: skip
    return folder


def pruned(
    data: Path, made: Path, tiny: Params, place: Path, device: Component, **changes: Any
) -> tuple[dict[str, Any], Remembering]:
    target = tiny.targets["sensor"]
    report: Any = Remembering(place / "scratch")
    figures = prune.run(
        data=data, labels=made / "labels", student=made / "student", out=place / "out", distill=target.distill,
        prune=PruneParams.model_validate({**target.prune.model_dump(), **changes}), train=target.student.train,
        device=device, threads=1, instructions="any", benchmark=target.benchmark, metric="accuracy", seed=0, report=report,
    )  # fmt: skip
    return figures, report


IN_FLOAT = {"variant": "model.fp32", "max_p95_ms": 10.0, "rounds": 3, "runs_per_round": 5}
LATENCY = {"ratio": None, "latency": IN_FLOAT, "round_to": 8, "steps": 2}


def clock_of(spec: Spec, latency: LatencyParams, scratch: Path, instructions: Instructions = "any") -> Stopwatch:
    samples = np.random.default_rng(0).integers(0, 256, (8, *spec.shape), dtype=np.uint8)
    report: Any = Remembering(scratch)
    return Stopwatch(
        spec, device(), 1, 1, latency, instructions=instructions, samples=samples, opset=18, seed=0, report=report
    )


def test_a_latency_is_kept_by_the_measured_file_and_a_kill_costs_no_measurement_twice(
    tmp_path: Path, data: Path, made: Path, tiny: Params
) -> None:
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        pruned(data, made, tiny, tmp_path, device(breaks_after=2), **LATENCY)
    figures, report = pruned(data, made, tiny, tmp_path, device(), **LATENCY)
    assert 7 < figures["latency"]["p95_ms"]["high"] <= 10
    assert figures["latency"]["networks_measured"] == len(measured) == len(set(measured)), "each width once"
    _, network = models.load(tmp_path / "out")
    assert figures["widths"] == {"layers.0": 8, "layers.3": 16, "head": 10}
    assert [network.body.get_submodule(name).weight.shape[0] for name in figures["widths"]] == [8, 16, 10]
    assert json.dumps(figures)
    assert f"prune.ratio: {figures['share']:g}, prune.latency: null" in report.lines[-1]


def test_what_may_be_fast_enough_is_measured_again_and_the_shortest_time_counts(
    tmp_path: Path, made: Path, tiny: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(9.0, 12.0), (9.5, 10.5), (9.5, 11.0), (11.0, 13.0)])

    def noisy(files: dict[str, Path], *_: Any) -> dict[str, Any]:
        low, high = next(times)
        return {"variants": {"candidate": {"p95_ms": {"value": low, "low": low, "high": high}}}}

    monkeypatch.setattr(stopwatch, "bind", lambda *_: noisy)
    monkeypatch.setattr(stopwatch, "to_onnx", lambda *_: None)
    spec, network = models.load(made / "student")
    clock = clock_of(spec, LatencyParams.model_validate(IN_FLOAT), tmp_path)
    chance = torch.get_rng_state()
    assert clock.upper_p95_ms(network) == 10.5, "the interval held the limit three times"
    assert torch.equal(torch.get_rng_state(), chance), "a ratio in its place must draw the same"
    assert clock.upper_p95_ms(network) == 10.5, "remembered"
    narrow = spec.model_copy(
        update={
            "cuts": {
                "layers.0": Cut(inputs=1, outputs=8),
                "layers.1": Cut(inputs=8, outputs=8),
                "layers.3": Cut(inputs=8, outputs=32),
            }
        }
    )
    assert clock.upper_p95_ms(models.build(narrow)) == 13, "clearly too slow: once is enough"
    assert next(times, None) is None


@pytest.mark.parametrize("instructions", ["any", "vnni", "dotprod"])
def test_the_int8_file_is_measured_where_that_is_what_ships(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, instructions: Instructions
) -> None:
    spec, network = models.load(made / "student")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights: list[onnx.TensorProto] = []

    def looking(files: dict[str, Path], *_: Any) -> dict[str, Any]:
        (file,) = files.values()
        graph = onnx.load(file).graph
        weights.extend(initializer for initializer in graph.initializer if len(initializer.dims) > 1)
        return {"variants": {"candidate": {"p95_ms": {"value": 1.0, "low": 1.0, "high": 1.0}}}}

    monkeypatch.setattr(stopwatch, "bind", lambda *_: looking)
    latency = LatencyParams.model_validate(IN_FLOAT | {"variant": "model.int8"})
    chance = torch.get_rng_state()
    assert clock_of(spec, latency, tmp_path, instructions).upper_p95_ms(network) == 1.0
    assert torch.equal(torch.get_rng_state(), chance), "a ratio in its place must draw the same"
    arrays = [onnx.numpy_helper.to_array(weight) for weight in weights if weight.data_type == onnx.TensorProto.INT8]
    assert len(arrays) == 3, "two convolutions and the head"
    smallest = min(int(array.min()) for array in arrays)
    assert smallest == (-64 if instructions == "any" else -128), "by the target's instructions"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.slow  # on a real device
def test_a_network_that_is_fast_enough_passes_through(tmp_path: Path, data: Path, made: Path, tiny: Params) -> None:
    fast = {"ratio": None, "latency": IN_FLOAT | {"max_p95_ms": 50.0}}
    figures, report = pruned(data, made, tiny, tmp_path, Component(use="local"), **fast)
    assert figures["macs_kept"] == 1
    assert 0 < figures["latency"]["p95_ms"]["value"] < 50
    assert figures["validation"] == figures["validation_before"]
    assert "nothing was cut" in report.warnings[0]


def test_a_device_that_answers_from_a_file_cannot_be_in_the_loop(
    tmp_path: Path, data: Path, made: Path, tiny: Params
) -> None:
    absent = Component.model_validate({"use": "result", "file": str(tmp_path / "none.json")})
    with pytest.raises(
        DeviceError, match=r"prune.latency needs a device that measures at once. .* Or cut to a prune.ratio"
    ):
        pruned(data, made, tiny, tmp_path, absent, **LATENCY)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_taylor_is_shown_the_stages_own_losses_and_gives_the_same_bytes_again(
    tmp_path: Path, data: Path, made: Path, tiny: Params, times: int
) -> None:
    taylor = {"use": "taylor", "num_batches": 3, "scope": "global"}
    digests = set()
    for number in range(times):
        place = tmp_path / str(number)
        figures, _ = pruned(data, made, tiny, place, device(0), **taylor)
        assert figures["macs_kept"] < 1
        digests.add(digest_of(place / "out"))
    assert len(digests) == 1


def test_whole_blocks_go_the_same_ones_each_time(tmp_path: Path, data: Path, made: Path, tiny: Params) -> None:
    meta = read_meta(data)
    spec = Spec(
        model=Component(use="resnet", width=8, depth=14), shape=meta.shape, dtype=meta.dtype, classes=meta.classes,
        mean=(40.0,), std=(50.0,),
    )  # fmt: skip
    torch.manual_seed(0)
    models.save(tmp_path / "made/student", spec, models.build(spec))
    (tmp_path / "made/labels").symlink_to(made / "labels")
    blocks = {"use": "loss", "num_batches": 2, "scope": "block", "ratio": 0.5, "round_to": 1, "steps": 2}
    digests = []
    for name in ("one", "again"):
        figures, _ = pruned(data, tmp_path / "made", tiny, tmp_path / name, device(), **blocks)
        pruned_spec, _ = models.load(tmp_path / name / "out")
        assert figures["skipped"] == list(pruned_spec.skipped)
        assert len(pruned_spec.skipped) == 2
        digests.append(digest_of(tmp_path / name / "out"))
    assert digests[0] == digests[1]

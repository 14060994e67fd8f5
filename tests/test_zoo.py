"""Every model of the zoo goes through the whole chain: build, prune, save, reload, quantize, save, reload, export."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from limbeck import checkpoint, export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import Meta
from limbeck.distillation import stored
from limbeck.errors import ComponentError
from limbeck.models import MODELS, Network
from limbeck.models.lean_resnet import LeanResNet, lean_resnet
from limbeck.models.mobilenet import InvertedResidual
from limbeck.models.skipping import residual
from limbeck.params import Params, PruneParams, WarmStart
from limbeck.prediction import predict
from limbeck.pruning import cut_spec, prune_

SOUNDS = st.sampled_from([(400, 1), (333, 1)])
FRONT = {"rate_hz": st.just(1000), "frame_ms": st.just(64.0), "hop_ms": st.just(32.0), "num_mels": st.just(8)}
IMAGES = st.sampled_from([(9, 7, 3), (8, 8, 1), (8, 8, 3), (5, 11, 2)])  # odd and oblong ones first
FEATURES = st.sampled_from([(12,), (5,)])
CODES = st.sampled_from([(9,), (3,)])
NUM_CODES = 50
SERIES = st.sampled_from([(17, 3), (32, 6), (9, 1)])
WIDTHS = st.sampled_from([6, 4, 8, 3])


def model_of(use: str, shape: st.SearchStrategy[tuple[int, ...]], **sizes: Any) -> st.SearchStrategy[Spec]:
    """Specs of one architecture: its sizes, the shape of a sample, the number of classes."""
    return specs_of(st.fixed_dictionaries({"use": st.just(use), "width": WIDTHS, **sizes}), shape)


def specs_of(
    keywords: st.SearchStrategy[dict[str, Any]], shape: st.SearchStrategy[tuple[int, ...]]
) -> st.SearchStrategy[Spec]:
    return st.builds(spec_of, keywords.map(Component.model_validate), shape, st.integers(3, 4))


def on_spectrograms(use: str, **sizes: Any) -> st.SearchStrategy[Spec]:
    """Specs of a network on images behind spectrograms of sound."""
    inner = st.fixed_dictionaries({"use": st.just(use), "width": WIDTHS, **sizes})
    return specs_of(st.fixed_dictionaries({"use": st.just("logmel"), **FRONT, "model": inner}), SOUNDS)


KINDS = {1: ("float32", 0.0, 1.0), 2: ("int16", 5.0, 1500.0), 3: ("uint8", 120.0, 60.0)}


def spec_of(model: Component, shape: tuple[int, ...], num_classes: int) -> Spec:
    dtype, centre, spread = KINDS[len(shape)]
    channels = shape[-1]
    return Spec(
        model=model, shape=shape, dtype=dtype, classes=tuple("abcd"[:num_classes]),
        mean=(centre,) * channels, std=(spread,) * channels,
    )  # fmt: skip


def text_model_of(use: str, **sizes: Any) -> st.SearchStrategy[Spec]:
    """Specs of one architecture for texts."""
    keywords = st.fixed_dictionaries({"use": st.just(use), "hidden": st.sampled_from([12, 6]), **sizes})
    return st.builds(
        lambda model, shape, num: Spec(model=model, shape=shape, dtype="int32", classes=tuple("abcd"[:num]), mean=(), std=()),
        keywords.map(Component.model_validate), CODES, st.integers(3, 4),
    )  # fmt: skip


def history_of(model: dict[str, Any], length: int, num_items: int) -> Spec:
    """A spec of a model that takes histories: codes of items, 0 for none."""
    return Spec(
        model=Component.model_validate(model), shape=(length,), dtype="int32", classes=tuple("abcdefgh"[:num_items]),
        mean=(), std=(),
    )  # fmt: skip


def of_history(use: str, **sizes: Any) -> st.SearchStrategy[Spec]:
    keywords = st.fixed_dictionaries(
        {"use": st.just(use), "width": WIDTHS, "hidden": st.sampled_from([6, 4]), "dropout": st.just(0.1), **sizes}
    )
    return st.builds(history_of, keywords, st.sampled_from([5, 2]), st.integers(3, 4))  # positions are no items


HISTORIES = ("two_tower", "sequential")
ZOO: dict[str, st.SearchStrategy[Spec]] = {
    "resnet": model_of("resnet", IMAGES, depth=st.sampled_from([8, 14])),
    "resnet, pad": model_of("resnet", IMAGES, depth=st.sampled_from([8, 14]), shortcut=st.just("pad")),
    "resnet, by stage": st.builds(
        spec_of,
        st.builds(
            lambda width, depth, shortcut: Component(use="resnet", width=width, depth=depth, shortcut=shortcut),
            st.sampled_from([[4, 6, 7], [3, 8, 12]]),
            st.sampled_from([[2, 1, 1], [1, 3, 1]]),
            st.sampled_from(["pad", "projection"]),
        ),
        IMAGES,
        st.integers(3, 4),
    ),
    "lean_resnet": st.builds(
        spec_of,
        st.builds(
            lambda width, depth: Component(use="lean_resnet", width=width, depth=depth),
            st.sampled_from([[4, 6, 7], [3, 8, 12]]),
            st.sampled_from([[0, 1, 1], [1, 2, 0]]),
        ),
        IMAGES,
        st.integers(3, 4),
    ),
    "convnet": model_of("convnet", IMAGES, depth=st.sampled_from([2, 1, 3])),
    "mobilenet": model_of("mobilenet", IMAGES, depth=st.sampled_from([3, 6]), expansion=st.sampled_from([2, 1, 6])),
    "mlp, images": model_of("mlp", IMAGES, depth=st.sampled_from([2, 1])),
    "mlp, features": model_of("mlp", FEATURES, depth=st.sampled_from([2, 1])),
    "ngram_embedding": text_model_of(
        "ngram_embedding", rows=st.sampled_from([[NUM_CODES, 97], [NUM_CODES]]), width=st.sampled_from([16, 5])
    ),
    "text_cnn": text_model_of(
        "text_cnn",
        rows=st.just(NUM_CODES),
        width=st.sampled_from([16, 5]),
        filters=st.sampled_from([8, 12]),
        reach=st.sampled_from([3, 5, 1]),
    ),
    "text_transformer": text_model_of(
        "text_transformer",
        rows=st.just(NUM_CODES),
        width=st.sampled_from([16, 8]),
        heads=st.sampled_from([2, 4]),
        depth=st.sampled_from([1, 2]),
    ),
    "resnet1d": model_of("resnet1d", SERIES, depth=st.sampled_from([2, 1, 3]), kernel=st.sampled_from([5, 3, 1])),
    "ds_cnn": model_of("ds_cnn", IMAGES, depth=st.sampled_from([2, 1])),
    "logmel, ds_cnn": on_spectrograms("ds_cnn", depth=st.sampled_from([2, 1])),
    "logmel, resnet": on_spectrograms("resnet", depth=st.just(8)),
    "two_tower": of_history("two_tower"),
    "sequential": of_history("sequential", depth=st.sampled_from([2, 1]), heads=st.just(1)),
}
OF_EVERY_KIND = ("resnet", "mobilenet", "mlp, features", "text_cnn", "resnet1d", "logmel, ds_cnn", "sequential")
"""Sums, depthwise convolutions, rows alone, tables, time, spectrograms, attention with a table of two uses."""
RATIOS = st.sampled_from([0.5, 0.3, 0.8])
FEW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def samples(spec: Spec, num: int = 24) -> NDArray[Any]:
    generator = np.random.default_rng(0)
    if spec.dtype == "int32" and spec.model.use in HISTORIES:
        return generator.integers(0, len(spec.classes) + 1, (num, *spec.shape), dtype=np.int32)
    if spec.dtype == "int32":  # codes, then padding
        codes = generator.integers(1, NUM_CODES, (num, *spec.shape), dtype=np.int32)
        return codes * (np.arange(spec.shape[0]) < generator.integers(1, spec.shape[0] + 1, (num, 1)))
    if spec.dtype == "uint8":
        return generator.integers(0, 256, (num, *spec.shape), dtype=np.uint8)
    if spec.dtype == "int16":
        return generator.normal(0, 1500, (num, *spec.shape)).astype(np.int16)
    return generator.normal(size=(num, *spec.shape)).astype(np.float32)


def seasoned(spec: Spec) -> Network:
    """A fresh network whose norms have seen data."""
    torch.manual_seed(0)
    network = models.build(spec).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.from_numpy(samples(spec)))
    return network.eval()


def pruned(tiny: Params, folder: Path, spec: Spec, ratio: float, round_to: int) -> tuple[Spec, Network]:
    """Prune a network, save it and load it again, which gives the same bits."""
    prune = tiny.targets["phone"].prune
    assert isinstance(prune, PruneParams)
    network, x = seasoned(spec), samples(spec)
    whole = models.num_params(network)
    list(prune_(network, prune.model_copy(update={"ratio": ratio, "round_to": round_to}), torch.from_numpy(x[:1])))
    spec = cut_spec(spec, network)
    assert bool(spec.cuts) == (models.num_params(network) < whole)
    models.save(folder, spec, network)
    again_spec, again = models.load(folder)
    assert again_spec.cuts == spec.cuts
    assert np.array_equal(predict(again, x), predict(network, x)), "bit-equal after a reload"
    return spec, again


def operators_run(path: Path) -> list[str]:
    """What ONNX Runtime really runs of a file, in its order."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.log_severity_level = 3  # it warns that this file is for this machine
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def drive(tiny: Params, folder: Path, spec: Spec, ratio: float) -> None:
    """Take one network down the whole chain."""
    x = samples(spec)
    spec, network = pruned(tiny, folder / "prune", spec, ratio, round_to=1)
    assert spec.cuts

    described = quantization.describe("static", "u8s7", Component(use="mse"))
    prepared = quantization.prepare(network, described, spec.shape, models.torch_dtype(spec.dtype))
    quantization.calibrate_(prepared, x, 8)
    int8 = quantization.convert(prepared)
    quantization.save(folder / "quantize", spec.model_copy(update={"quantization": described}), prepared)
    _, loaded = quantization.load(folder / "quantize")
    assert np.array_equal(predict(loaded, x), predict(int8, x)), "bit-equal after build, prepare, fill, convert"

    for name, exported, tolerance in (("fp32", network, 1e-4), ("int8", loaded, None)):
        path = folder / f"{name}.onnx"
        export.to_onnx(path, exported, spec, 18, {})
        export.check_parity(path, exported, x, max_difference=tolerance, min_equal=0.8)
        assert export.run(path, x[:1]).shape == (1, len(spec.classes)), "the batch is dynamic"
    stored = onnx.load(folder / "int8.onnx").graph.initializer
    if spec.model.use in HISTORIES:
        tables = [t for t in stored if tuple(t.dims) == (len(spec.classes), spec.model.keywords["width"])]
        assert {t.data_type for t in tables} == {onnx.TensorProto.INT8}, "a table of bytes serves both its uses"
        assert "Gemm" not in operators_run(folder / "int8.onnx"), "ONNX Runtime computes a catalogue in int8"
    elif spec.dtype == "int32":
        tables = [tensor for tensor in stored if tensor.dims[:1] == [NUM_CODES]]
        assert sorted((tensor.data_type, len(tensor.dims), tensor.dims[1] == 1) for tensor in tables) == [
            (onnx.TensorProto.FLOAT, 2, True), (onnx.TensorProto.INT8, 2, False),
        ], "a table of bytes, and a scale for each row"  # fmt: skip
    else:
        in_int8 = {"Conv", "FusedConv"} if spec.model.use == "logmel" else {"Conv", "FusedConv", "Add"}
        floats = in_int8.intersection(operators_run(folder / "int8.onnx"))
        assert not floats, "ONNX Runtime computes convolutions and sums in int8, but those of a spectrogram"


def test_the_zoo_is_the_table() -> None:
    assert {name.split(",")[0] for name in ZOO} == set(MODELS) - {"ensemble", "bert"}, "these teach, nobody ships them"


@pytest.mark.parametrize("specs", ZOO.values(), ids=ZOO)
def test_a_pruned_network_of_any_size_comes_back_to_the_bit(specs: st.SearchStrategy[Spec], tiny: Params) -> None:
    @settings(max_examples=8)
    @given(specs, RATIOS, st.sampled_from([1, 2, 4]))
    def holds(spec: Spec, ratio: float, round_to: int) -> None:
        with TemporaryDirectory() as folder:
            pruned(tiny, Path(folder), spec, ratio, round_to)

    holds()


@pytest.mark.parametrize("specs", ZOO.values(), ids=ZOO)
def test_a_pruned_network_of_any_size_starts_again_with_one_class_more(
    specs: st.SearchStrategy[Spec], tiny: Params
) -> None:
    @settings(max_examples=1)
    @given(specs, RATIOS)
    def holds(spec: Spec, ratio: float) -> None:
        with TemporaryDirectory() as place:
            folder, x = Path(place), samples(spec)
            spec, network = pruned(tiny, folder, spec, ratio, round_to=1)
            for classes in (spec.classes, (*spec.classes, "e")):
                warm = WarmStart(use="checkpoint", folder=folder, sha256=checkpoint.digest_of(folder), tune="all")
                grown_spec, grown = stored(warm, folder, meta_of(spec, classes))
                assert np.allclose(predict(grown, x)[:, : len(spec.classes)], predict(network, x), atol=1e-4)
                again = models.build(grown_spec)
                again.load_state_dict(grown.state_dict())

    holds()


def meta_of(spec: Spec, classes: tuple[str, ...]) -> Meta:
    return Meta(
        name="zoo", classes=classes, shape=spec.shape, dtype=spec.dtype, counts={}, mean=spec.mean, std=spec.std, overlap=0,
        skipped=0, sha256={}, digest="",
    )  # fmt: skip


@pytest.mark.parametrize("specs", [ZOO[name] for name in OF_EVERY_KIND], ids=OF_EVERY_KIND)
def test_models_of_every_kind_go_through_the_whole_chain(
    specs: st.SearchStrategy[Spec], tiny: Params, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=1)  # the first of every choice; seconds each
    @given(specs, RATIOS)
    def holds(spec: Spec, ratio: float) -> None:
        drive(tiny, tmp_path_factory.mktemp("chain"), spec, ratio)

    holds()


@pytest.mark.slow
@pytest.mark.parametrize("specs", ZOO.values(), ids=ZOO)
def test_every_size_of_every_model_goes_through_the_whole_chain(
    specs: st.SearchStrategy[Spec], tiny: Params, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=6)
    @given(specs, RATIOS)
    def holds(spec: Spec, ratio: float) -> None:
        drive(tiny, tmp_path_factory.mktemp("chain"), spec, ratio)

    holds()


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_a_resnet_has_the_size_of_the_published_one(depth: int, parameters: int) -> None:
    """He et al. 2015, table 6: 0.27, 0.46, 0.66 and 0.85 million with option A."""
    keywords = {"use": "resnet", "width": 16, "depth": depth, "shortcut": "pad"}
    network = models.build(spec_of(Component.model_validate(keywords), (32, 32, 3), 4))
    assert models.num_params(network) == parameters - 6 * 65  # ten classes there, four here


def test_a_resnet_can_be_said_stage_by_stage() -> None:
    whole = {"width": 8, "depth": 14}
    staged = {"width": [8, 16, 32], "depth": [2, 2, 2]}
    one, other = (models.build(spec_of(Component(use="resnet", **sizes), (8, 8, 3), 3)) for sizes in (whole, staged))
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    with pytest.raises(ComponentError, match=r"shortcut pad only adds channels, found widths \(8, 4, 4\)"):
        models.build(spec_of(Component(use="resnet", width=[8, 4, 4], depth=[1, 1, 1], shortcut="pad"), (8, 8, 3), 3))
    with pytest.raises(ComponentError, match="model 'resnet': depth"):
        models.build(spec_of(Component(use="resnet", width=8, depth=[2, 2]), (8, 8, 3), 3))


def test_an_inverted_residual_is_added_where_shapes_agree_and_ends_without_a_nonlinearity() -> None:
    same, wider, halved = (InvertedResidual(4, outputs, stride, 6) for outputs, stride in ((4, 1), (8, 1), (4, 2)))
    assert (same.is_residual, wider.is_residual, halved.is_residual) == (True, False, False)
    assert not isinstance(same.layers[-1], nn.ReLU)
    depthwise = [m for m in same.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [(m.groups, m.in_channels, m.kernel_size) for m in depthwise] == [(24, 24, (3, 3))]


@pytest.mark.parametrize(
    "model",
    [
        Component(use="resnet", width=4, depth=8),
        Component(use="lean_resnet", width=[4], depth=[1]),
        Component(use="convnet", width=4, depth=2),
        Component(use="mobilenet", width=4, depth=3),
        Component(use="ds_cnn", width=4, depth=2),
    ],
    ids=lambda model: model.use,
)
def test_convolutions_refuse_features_and_name_what_takes_them(model: Component) -> None:
    with pytest.raises(ComponentError, match=rf"{model.use} takes images, found samples of shape \(12,\); "):
        models.build(spec_of(model, (12,), 3))


def test_a_lean_resnet_halves_the_size_from_stage_to_stage_and_says_which_blocks_may_go() -> None:
    body = lean_resnet((3, 12, 12), 5, width=(4, 6, 8), depth=(0, 1, 2))
    assert isinstance(body, LeanResNet)
    assert body.layers(torch.zeros(1, 3, 12, 12)).shape == (1, 8, 3, 3)
    assert len(residual(body)) == 3


def test_a_lean_resnet_has_a_depth_for_each_width() -> None:
    with pytest.raises(ComponentError, match="expected a depth for each width, found 2 widths, 1 depths"):
        models.build(spec_of(Component(use="lean_resnet", width=[4, 8], depth=[1]), (8, 8, 3), 3))


@pytest.mark.parametrize("shape", [(8, 8, 3), (12,)])
def test_a_network_over_time_refuses_what_has_none(shape: tuple[int, ...]) -> None:
    with pytest.raises(ComponentError, match=r"resnet1d takes sequences \[T, C\], found samples of shape"):
        models.build(spec_of(Component(use="resnet1d", width=4, depth=1, kernel=3), shape, 3))
    with pytest.raises(ComponentError, match="kernel is 4; expected an odd number of steps"):
        models.build(spec_of(Component(use="resnet1d", width=4, depth=1, kernel=4), (8, 2), 3))


@pytest.mark.parametrize("depth", [2, 4, 0])
def test_a_mobilenet_has_three_equal_stages(depth: int) -> None:
    with pytest.raises(ComponentError, match="model 'mobilenet': depth is .; expected a multiple of 3"):
        models.build(spec_of(Component(use="mobilenet", width=4, depth=depth), (8, 8, 3), 3))

"""Checkpoint, pruning, quantization and export, each alone. (tests/test_zoo.py joins them on every model.)"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck import checkpoint, export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.errors import CheckpointError, ExportError, ParamsError
from limbeck.models import Network
from limbeck.params import Params, PruneParams
from limbeck.prediction import predict
from limbeck.pruning import cut_spec, prune_
from tests.conftest import ROOT

ZOO = [Component(use="resnet", width=8, depth=8), Component(use="convnet", width=8, depth=2)]


def spec_of(model: Component, shape: tuple[int, ...] = (8, 8, 3)) -> Spec:
    return Spec(model=model, shape=shape, dtype="uint8", classes=("a", "b", "c"), mean=(120.0,) * 3, std=(60.0,) * 3)


def samples(num: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)


def seasoned(spec: Spec) -> Network:
    """A fresh network whose norms have seen data."""
    torch.manual_seed(0)
    network = models.build(spec).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.from_numpy(samples()))
    return network.eval()


@pytest.fixture
def pruning(tiny: Params) -> PruneParams:
    prune = tiny.targets["phone"].prune
    assert isinstance(prune, PruneParams)
    return prune.model_copy(update={"ratio": 0.5, "round_to": 2})


def test_a_network_trained_quantized_with_a_layer_in_float_comes_back_to_the_bit(tmp_path: Path) -> None:
    spec, x = spec_of(ZOO[1]), samples()
    left = ("body.layers.3",)
    described = quantization.describe("static", "u8s7", Component(use="mse"), float_layers=left, trained=True)
    prepared = quantization.prepare(seasoned(spec), described, spec.shape, torch.uint8)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    prepared.train()
    for _ in range(3):
        optimizer.zero_grad()
        prepared(torch.from_numpy(x)).square().mean().backward()
        optimizer.step()
    quantization.save(tmp_path / "q", spec.model_copy(update={"quantization": described}), prepared)
    _, loaded = quantization.load(tmp_path / "q")
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))
    export.to_onnx(tmp_path / "q.onnx", loaded, spec, 18, {})
    export.check_parity(tmp_path / "q.onnx", loaded, x, max_difference=None, min_equal=0.8)


def test_a_pruned_network_loads_without_torch_pruning(tmp_path: Path, pruning: PruneParams) -> None:
    spec = spec_of(ZOO[0])
    network = seasoned(spec)
    list(prune_(network, pruning, torch.from_numpy(samples(1))))
    models.save(tmp_path / "m", cut_spec(spec, network), network)
    code = (
        "import sys; sys.modules['torch_pruning'] = None\n"
        "from pathlib import Path; from limbeck import models; models.load(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m"], check=True, cwd=ROOT)


BUDGETS = {
    "max_macs": ("MACs", lambda network: models.count_macs(network, torch.from_numpy(samples(1)))),
    "max_parameters": ("parameters", models.num_params),
}


@pytest.mark.parametrize("key", BUDGETS)
def test_pruning_reaches_a_budget(pruning: PruneParams, key: str) -> None:
    network, sample, (_, count) = seasoned(spec_of(ZOO[0])), torch.from_numpy(samples(1)), BUDGETS[key]
    whole = count(network)
    budget = pruning.model_copy(update={"ratio": None, key: whole // 2, "steps": 2})
    steps = list(prune_(network, budget, sample))
    assert len(steps) == 2
    assert 0.3 * whole < count(network) <= whole // 2
    assert steps[-1].macs == models.count_macs(network, sample)


@pytest.mark.parametrize("key", BUDGETS)
def test_a_budget_that_cannot_be_reached_says_how_narrow_it_gets(pruning: PruneParams, key: str) -> None:
    network, (unit, _) = seasoned(spec_of(ZOO[0])), BUDGETS[key]
    with pytest.raises(ParamsError, match=rf"asks for 10 {unit}; the narrowest this network gets .* Raise it"):
        list(prune_(network, pruning.model_copy(update={"ratio": None, key: 10}), torch.from_numpy(samples(1))))


def test_widths_are_rounded_and_the_logits_stay(pruning: PruneParams) -> None:
    network = seasoned(spec_of(ZOO[0]))
    list(prune_(network, pruning.model_copy(update={"round_to": 4}), torch.from_numpy(samples(1))))
    widths = {m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)}
    assert all(width % 4 == 0 for width in widths)
    assert network(torch.from_numpy(samples(2))).shape == (2, 3)


class Scaled(nn.Module):
    """A width that only this module knows: no checkpoint remembers its cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Body(nn.Module):
    """A model of somebody else's: two convolutions with a module between them, then features with norms."""

    def __init__(self, num_classes: int, between: nn.Module) -> None:
        super().__init__()
        self.conv1, self.between, self.conv2 = nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 8, 3)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.hidden, self.norm, self.head = nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.relu1(self.between(self.conv1(x))))).mean((2, 3))
        return self.head(self.relu3(self.norm(self.hidden(x))))  # type: ignore[no-any-return]


def somebodys(shape: tuple[int, ...], num_classes: int, *, between: str) -> nn.Module:
    kinds: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "own weights": lambda: Scaled(8),
        "group norm": lambda: nn.GroupNorm(2, 8),
    }
    return Body(num_classes, kinds[between]())


@pytest.mark.parametrize(("between", "width"), [("none", 4), ("own weights", 8), ("group norm", 8)])
def test_channels_stay_where_no_checkpoint_could_remember_that_they_went(
    tmp_path: Path, pruning: PruneParams, between: str, width: int
) -> None:
    spec = spec_of(Component.model_validate({"use": "tests.test_compression:somebodys", "between": between}))
    network = seasoned(spec)
    list(prune_(network, pruning, torch.from_numpy(samples(1))))
    assert network.get_submodule("body.conv1").out_channels == width
    assert network.get_submodule("body.conv2").out_channels == 4
    assert network.get_submodule("body.hidden").out_features == 6
    models.save(tmp_path / "m", cut_spec(spec, network), network)
    _, again = models.load(tmp_path / "m")
    assert np.array_equal(predict(again, samples()), predict(network, samples()))


def test_macs_are_counted_as_by_hand() -> None:
    network = models.build(spec_of(Component(use="convnet", width=4, depth=2)))
    expected = 8 * 8 * 4 * (3 * 9) + 4 * 4 * 8 * (4 * 9) + 3 * (8 * 4)
    assert models.count_macs(network, torch.from_numpy(samples(1))) == expected


def test_a_depthwise_convolution_multiplies_each_channel_by_itself() -> None:
    network = models.build(spec_of(Component(use="mobilenet", width=4, depth=3, expansion=2)))
    first, half = 8 * 8, 4 * 4  # pixels before and after a stride of 2

    def block(before: int, after: int, inputs: int, outputs: int) -> int:
        wide = 2 * inputs
        return before * inputs * wide + after * wide * 9 + after * wide * outputs

    expected = first * 4 * 27 + block(first, first, 4, 4) + block(first, half, 4, 8) + block(half, 4, 8, 16)
    expected += 4 * 16 * 32 + 32 * 3
    assert models.count_macs(network, torch.from_numpy(samples(1))) == expected


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    spec = spec_of(ZOO[1])
    models.save(tmp_path / "model", spec, seasoned(spec))
    return tmp_path / "model"


def test_a_checkpoint_holds_no_pickle_and_equal_weights_give_equal_bytes(tmp_path: Path, stored: Path) -> None:
    assert sorted(path.name for path in stored.iterdir()) == ["model.json", "weights.safetensors"]
    spec = spec_of(ZOO[1])
    models.save(tmp_path / "again", spec, seasoned(spec))
    assert checkpoint.digest_of(tmp_path / "again") == checkpoint.digest_of(stored)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "weights.safetensors").write_bytes(b"short"), r"is corrupt or truncated: expected sha256"),
        (lambda f: (f / "weights.safetensors").unlink(), r"weights.safetensors is missing. `dvc checkout` restores it"),
        (lambda f: (f / "model.json").write_text("{"), r"model.json is no checkpoint"),
        (lambda f: (f / "model.json").unlink(), r"holds no model.json; expected a Limbeck checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_next_step(stored: Path, harm: object, message: str) -> None:
    harm(stored)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        models.load(stored)


def test_weights_of_another_shape_are_named(stored: Path) -> None:
    raw = json.loads((stored / "model.json").read_text())
    raw["model"]["width"] = 16
    (stored / "model.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"body.head.bias|body.layers.0.weight: expected \(16, 3, 3, 3\)"):
        models.load(stored)


def test_an_exported_file_has_equal_bytes_in_any_folder_and_no_trace_of_one(tmp_path: Path, stored: Path) -> None:
    spec, network = models.load(stored)
    digests = set()
    for place in ("one", "two"):
        path = tmp_path / place / "model.onnx"
        export.to_onnx(path, network, spec, 18, {"data": "d"})
        digests.add(path.read_bytes())
        content = path.read_bytes()
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content
        assert b"body." not in content
    assert len(digests) == 1
    model = onnx.load(path)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert notes == {"limbeck.classes": "a\nb\nc", "limbeck.data": "d"}
    assert model.graph.input[0].name == "input"
    assert model.graph.output[0].name == "logits"


def test_a_file_that_answers_otherwise_is_refused(tmp_path: Path, stored: Path) -> None:
    spec, network = models.load(stored)
    export.to_onnx(tmp_path / "model.onnx", network, spec, 18, {})
    with torch.no_grad():
        network.body.head.weight.add_(0.5)  # type: ignore[union-attr, operator]
    with pytest.raises(ExportError, match=r"does not answer like its model: logits differ by"):
        export.check_parity(tmp_path / "model.onnx", network, samples(), max_difference=1e-3, min_equal=0.0)

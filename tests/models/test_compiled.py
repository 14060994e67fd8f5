"""Compiling is a matter of speed: who decides, that results stay, and that a failure costs nothing but time."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models import compiled as subject
from limbeck.models.compiled import compiled, pays

SAMPLE = torch.zeros(1, 8)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.0), nn.Linear(16, 3))  # 176 MACs


@pytest.mark.parametrize(("samples", "expected"), [(99, False), (100, True)])
def test_auto_compiles_from_a_number_of_operations_not_from_a_time(
    network: nn.Module, samples: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "ENOUGH_MACS", 17_600)
    assert pays("auto", network, SAMPLE, samples) is expected
    assert pays("always", network, SAMPLE, samples)
    assert not pays("never", network, SAMPLE, samples)


def test_a_graph_without_layers_is_left_alone(network: nn.Module) -> None:
    graph = torch.export.export(network, (SAMPLE,)).module()
    assert not pays("always", graph, SAMPLE, 100)


def test_a_network_that_cannot_be_compiled_goes_on_as_it_is_and_a_warning_says_why(
    network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    before = torch.get_rng_state()

    def fails(_: nn.Module) -> None:
        torch.rand(1)
        raise RuntimeError("no working C++ compiler\nand more")

    with caplog.at_level(logging.WARNING):
        assert compiled(network, fails) is network
    assert "RuntimeError: no working C++ compiler)" in caplog.text
    assert "g++ python3-dev" in caplog.text
    assert torch.equal(torch.get_rng_state(), before)


def test_a_compiled_network_shares_its_weights_answers_alike_and_learns_the_same_bits_twice(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x, y = torch.randn(32, 8), torch.arange(32) % 3

    def loss(model: nn.Module) -> Tensor:
        return functional.cross_entropy(model(x), y)

    start = {name: value.clone() for name, value in network.state_dict().items()}
    ends: list[dict[str, Any]] = []
    for _ in range(2):
        network.load_state_dict(start)
        quick = compiled(network, lambda trial: loss(trial).backward())
        assert quick is not network
        assert loss(quick).item() == pytest.approx(loss(network).item(), rel=1e-5)
        assert all(torch.equal(value, start[name]) for name, value in network.state_dict().items())
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            loss(quick).backward()
            optimizer.step()
        ends.append({name: value.clone() for name, value in network.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    assert not torch.equal(ends[0]["0.weight"], start["0.weight"])


def test_a_frozen_network_answers_alike_from_weights_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)
    )
    x = torch.randn(4, 3, 8, 8)
    for _ in range(5):
        network(torch.randn(16, 3, 8, 8))  # its norms have something to fold
    network.eval()
    with torch.inference_mode():
        expected = network(x)
        quick = compiled(network, lambda trial: trial(x), frozen=True)
        torch.testing.assert_close(quick(x), expected)
        network[1].weight.zero_()
        torch.testing.assert_close(quick(x), expected)
        assert not torch.allclose(network(x), expected, atol=1e-3)


def test_a_compiled_loop_lets_other_threads_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    with torch.no_grad():
        compiled(model, lambda trial: trial(SAMPLE))
    sources = [path.read_text() for path in tmp_path.rglob("*.cpp")]
    assert any("Released now; kernel(" in source for source in sources)

"""Spectrograms in the graph, held against scipy's, and what remains of them in the files that ship."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from limbeck import export, models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.models.logmel import LogMel, logmel
from limbeck.prediction import predict

RATE = 8000
FRAME, HOP, MELS = 256, 128, 40
SMALL = {"use": "ds_cnn", "width": 8, "depth": 1}


def front(length: int = RATE, **keywords: Any) -> LogMel:
    made = logmel((1, length), 3, model=Component.model_validate(SMALL), rate_hz=RATE, **keywords)
    found = made.front
    assert isinstance(found, LogMel)
    return found


def sounds(num: int = 3, length: int = RATE) -> NDArray[np.float32]:
    """Chirps under noise, the last third silent."""
    generator = np.random.default_rng(0)
    time = np.arange(length) / RATE
    chirps = [
        scipy.signal.chirp(time, generator.uniform(100, 900), 1, generator.uniform(1500, 3900)) for _ in range(num)
    ]
    x = np.stack(chirps) + 0.01 * generator.normal(size=(num, length))
    x[:, 2 * length // 3 :] = 0
    return x[:, None].astype(np.float32)


def scipys(x_B1T: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same by scipy's transform and triangles drawn by numpy: [B, 1, J, M]."""
    window = scipy.signal.get_window("hann", FRAME)
    starts = range(0, x_B1T.shape[2] // HOP * HOP - FRAME + 1, HOP)
    frames = np.stack([x_B1T[:, 0, s : s + FRAME] for s in starts], axis=1).astype(np.float64)
    power = np.abs(scipy.fft.rfft(frames * window)) ** 2
    mel_of = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    points = 700 * (10 ** (np.linspace(mel_of(60), mel_of(RATE / 2), MELS + 2) / 2595) - 1)
    hertz = scipy.fft.rfftfreq(FRAME, 1 / RATE)
    triangles = np.stack([np.interp(hertz, points[m : m + 3], [0, 1, 0], 0, 0) for m in range(MELS)])
    levels = np.log10(np.maximum(power @ triangles.T, 1e-10))
    loudest = levels.max((1, 2), keepdims=True)
    return ((np.maximum(levels, loudest - 8) - loudest) / 4 + 1)[:, None]


def test_a_spectrogram_is_scipys() -> None:
    x = sounds()
    found = front()(torch.from_numpy(x)).numpy()
    assert found.shape == (3, *front().shape) == (3, 1, 61, MELS)
    assert np.abs(found - scipys(x)).max() < 2e-4  # of float32, 80 dB down


def test_a_tone_lights_the_mels_around_it() -> None:
    time = np.arange(RATE) / RATE
    x = torch.from_numpy(np.sin(2 * np.pi * np.array([[200], [1000], [3000]]) * time)[:, None].astype(np.float32))
    brightest = front()(x)[:, 0].mean(1).argmax(1)
    edges_hz = front().edges * RATE / FRAME
    for mel, hertz in zip(brightest.tolist(), (200, 1000, 3000), strict=True):
        assert edges_hz[mel] < hertz < edges_hz[mel + 2]


@given(st.floats(0.02, 50))
def test_how_loud_a_recording_is_changes_nothing(gain: float) -> None:
    x = torch.from_numpy(sounds(1))
    assert torch.allclose(front()(x * gain), front()(x), atol=1e-3)


def test_silence_is_one_colour_and_no_accident() -> None:
    found = front()(torch.zeros(1, 1, RATE))
    assert torch.equal(found, torch.ones_like(found))


def test_sound_before_silence_leaves_it_dark() -> None:
    found = front()(torch.from_numpy(sounds()))
    assert found.max() == 1
    assert found[:, :, -5:].max() == -1


def test_spectra_stay_exact_where_the_network_computes_in_bfloat16() -> None:
    x, exact = torch.from_numpy(sounds()), front()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exact(x), front()(x))
        found = exact(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact(x))


def test_nothing_in_it_is_learned_or_stored() -> None:
    assert not list(front().parameters())
    assert not front().state_dict()


def spec_of(model: dict[str, Any], length: int = RATE) -> Spec:
    return Spec(
        model=Component.model_validate(model), shape=(length, 1), dtype="int16", classes=("a", "b", "c"), mean=(3.0,), std=(1500.0,)
    )  # fmt: skip


def seasoned(spec: Spec, x: NDArray[np.int16]) -> models.Network:
    torch.manual_seed(0)
    network = models.build(spec).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.from_numpy(x))
    return network.eval()


def exported(folder: Path) -> tuple[Path, Path]:
    """fp32 and int8 file of a small network behind spectrograms, each held against its model."""
    spec = spec_of({"use": "logmel", "rate_hz": RATE, "model": SMALL})
    x = np.rint(3000 * sounds(8)).astype(np.int16).transpose(0, 2, 1)
    network = seasoned(spec, x)
    prepared = quantization.prepare(
        network, quantization.describe("static", "u8s7", Component(use="min_max")), spec.shape, torch.int16
    )
    quantization.calibrate_(prepared, x, 8)
    paths = folder / "fp32.onnx", folder / "int8.onnx"
    for path, model, tolerance in zip(paths, (network, quantization.convert(prepared)), (1e-4, None), strict=True):
        export.to_onnx(path, model, spec, 18, {})
        export.check_parity(path, model, x, max_difference=tolerance, min_equal=1.0)
    assert np.abs(export.run(paths[1], x) - predict(network, x)).max() < 0.2
    return paths


def test_the_files_hold_formulas_for_kernels_and_filters(tmp_path: Path) -> None:
    for path in exported(tmp_path):
        graph = onnx.load(path).graph
        assert max(np.prod(tensor.dims, dtype=int) for tensor in graph.initializer) <= 1024
        assert path.stat().st_size < 20_000, "a table of kernels alone would take 262 kB"
        kinds = [node.op_type for node in graph.node]
        quantized = kinds.index("QuantizeLinear") if "QuantizeLinear" in kinds else len(kinds)
        assert kinds.index("Log") < quantized, "up to the logarithm everything is float"


def test_macs_of_the_spectra_are_counted() -> None:
    spec = spec_of({"use": "logmel", "rate_hz": RATE, "model": SMALL})
    sample = torch.zeros((1, *spec.shape), dtype=torch.int16)
    network = models.build(spec)
    body = network.body.get_submodule("body")
    alone = sum(m.weight[0].numel() for m in body.modules() if isinstance(m, nn.Linear)) * 3
    alone += sum(30 * 20 * m.weight.numel() for m in body.modules() if isinstance(m, nn.Conv2d))
    assert models.count_macs(network, sample) == alone + 61 * (FRAME * FRAME + FRAME * MELS)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        (
            {"hop_ms": 10.0},
            "at 8000 Hz a frame of 32 ms is 256 samples and a hop of 10 ms is 80; expected an even frame",
        ),
        ({"hop_ms": 0.01}, "a hop of 0.01 ms is 0"),
        ({"num_mels": 128}, r"\d+ of 128 mels hold no bin of a frame of 32 ms \(31.25 Hz each\); choose fewer mels"),
        ({"low_hz": 5000.0}, "mels from 5000 to 4000 Hz"),
        ({"high_hz": 5000.0}, "mels from 60 to 5000 Hz; expected less than half of 8000 Hz"),
        ({"length": 100}, r"samples of 100 are shorter than a frame of 256 \(32 ms\)"),
    ],
)
def test_what_does_not_come_out_is_refused(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(ComponentError, match=said):
        front(**keywords)


@pytest.mark.parametrize("shape", [(2, 4000), (12,), (3, 8, 8)])
def test_what_is_no_sound_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ComponentError, match=r"logmel takes sound of one channel \[T, 1\], found samples of shape"):
        logmel(shape, 3, model=Component.model_validate(SMALL), rate_hz=RATE)

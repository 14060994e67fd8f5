"""Log-mel spectrograms inside the graph: raw samples of sound in, an image of time and pitch for any network on images.

Nothing in it is trained, cut or quantized. Kernels and filters are formulas, not tables: 256 samples and 128 bins
would be 262 kB of cosines in a file whose network takes 40. `limbeck.export` leaves such formulas unfolded, and ONNX
Runtime computes them once, when it opens the file. Legend: B batch, T samples, J frames, N samples of a frame,
P pieces of a frame, F bins, M mels.
"""

from math import log10, pi

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, fx, nn

from limbeck.components import Component
from limbeck.errors import ComponentError

DECADES = 8.0
"""What lies so far (80 dB) below the loudest place of a spectrogram is silence."""
FAINTEST = 1e-10
"""Power of a whole sample of zeros."""


class LogMel(nn.Module):
    """Sound [B, 1, T] -> spectrograms [B, 1, J, M], -1 (silence) to 1 (the loudest place of each)."""

    edges: Tensor

    def __init__(self, length: int, rate_hz: int, frame: int, hop: int, edges_hz: list[float]) -> None:
        super().__init__()
        self.frame, self.hop = frame, hop
        self.used = length // hop * hop
        num_frames, num_mels = length // hop - frame // hop + 1, len(edges_hz) - 2
        self.shape = (1, num_frames, num_mels)
        self.macs = num_frames * (frame // 2 * 2) * (frame + num_mels)
        """Multiply-accumulates of one sample."""
        edges = torch.tensor([edge * frame / rate_hz for edge in edges_hz])  # in bins
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """[B, 1, T] -> [B, 1, J, M]."""
        return spectrograms(sound, self.edges, self.used, self.frame, self.hop)


def spectrograms(sound: Tensor, edges: Tensor, used: int, frame: int, hop: int) -> Tensor:
    """What `log_mel` says, in float32 also where everything around it is bfloat16, whose 8 bits end at 48 dB."""
    if not torch.is_autocast_enabled(sound.device.type):
        return log_mel(sound, edges, used, frame, hop)
    with torch.autocast(sound.device.type, enabled=False):
        return log_mel(sound, edges, used, frame, hop)


fx.wrap("spectrograms")  # one step to whoever traces a network to fold its norms: else the kernels became a constant


def log_mel(sound: Tensor, edges: Tensor, used: int, frame: int, hop: int) -> Tensor:
    """Short-time power spectra under triangles that are equally wide in mel, as logarithms, relative to the loudest.

    The floor and the scale are those of Whisper (Radford et al. 2023, Robust Speech Recognition via Large-Scale Weak
    Supervision, section 2.2): how loud a recording is changes nothing, and what follows has one range for all.

    Args:
        sound: [B, 1, T].
        edges: [M + 2], where the triangles begin, peak and end, in bins.
        used: how many of the T samples are whole hops.
        frame: samples of one, a multiple of `hop`.
        hop: samples from one frame to the next.

    """
    pieces_BJN = sound[:, 0, :used].reshape(-1, used // hop, hop)
    num_pieces = frame // hop
    num_frames = used // hop - num_pieces + 1
    # joined slices: `unfold` would be exported as a table of indices, larger than the network
    frames_BJN = torch.cat([pieces_BJN[:, start : start + num_frames] for start in range(num_pieces)], dim=2)
    spectra_BJF = torch.matmul(frames_BJN, _kernels(frame, sound.device))
    power_BJM = torch.matmul(spectra_BJF.square(), _triangles(frame, edges).repeat(2, 1))
    levels_BJM = power_BJM.clamp(min=FAINTEST).log10()
    loudest_B11 = levels_BJM.amax((1, 2), keepdim=True)
    relative_BJM = torch.maximum(levels_BJM, loudest_B11 - DECADES) - loudest_B11
    return (relative_BJM * (2 / DECADES) + 1).unsqueeze(1)


def _kernels(frame: int, device: torch.device) -> Tensor:
    """The Fourier transform under a Hann window, [N, 2 F]: cosines, then sines, of bins 1 to N / 2."""
    sample_N1 = torch.arange(frame, dtype=torch.float32, device=device)[:, None]
    bin_F = torch.arange(1, frame // 2 + 1, dtype=torch.float32, device=device)
    angle_NF = torch.remainder(sample_N1 * bin_F, frame) * (2 * pi / frame)  # exact up to here: whole turns go first
    window_N1 = 0.5 - 0.5 * torch.cos(sample_N1 * (2 * pi / frame))
    return torch.cat([torch.cos(angle_NF), torch.sin(angle_NF)], dim=1) * window_N1


def _triangles(frame: int, edges: Tensor) -> Tensor:
    """How much of each bin belongs to each mel, [F, M]."""
    bin_F1 = torch.arange(1, frame // 2 + 1, dtype=torch.float32, device=edges.device)[:, None]
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bin_F1 - low) / (peak - low), (high - bin_F1) / (high - peak)).clamp(min=0)


class OnSpectrograms(nn.Module):
    """Spectrograms, and a network that takes them for images: [B, 1, T] -> logits [B, K]."""

    def __init__(self, front: LogMel, body: nn.Module) -> None:
        super().__init__()
        self.front, self.body = front, body

    def forward(self, sound: Tensor) -> Tensor:
        """[B, 1, T] -> logits [B, K]."""
        logits: Tensor = self.body(self.front(sound))
        return logits


def logmel(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    model: Component,
    rate_hz: PositiveInt,
    frame_ms: PositiveFloat = 32.0,
    hop_ms: PositiveFloat = 16.0,
    num_mels: PositiveInt = 40,
    low_hz: NonNegativeFloat = 60.0,
    high_hz: PositiveFloat | None = None,
) -> nn.Module:
    """A network on images, `model`, behind log-mel spectrograms [1, J, M] of sound.

    Args:
        shape: of the sound, [1, T].
        num_classes: K.
        model: `resnet`, `ds_cnn`, ..., what it takes beside `use`.
        rate_hz: samples a second of the data; the samples themselves do not say.
        frame_ms: what one spectrum is of, a multiple of `hop_ms`.
        hop_ms: from one to the next.
        num_mels: M.
        low_hz: where the lowest triangle begins.
        high_hz: where the highest one ends; None: at half of `rate_hz`.

    Raises:
        ComponentError: samples that are no sound of one channel, or are shorter than a frame; frames or triangles that
            do not come out.

    """
    if len(shape) != 2 or shape[0] != 1:
        raise ComponentError(
            f"logmel takes sound of one channel [T, 1], found samples of shape {shape[::-1]}; choose another model."
        )
    frame, hop = round(frame_ms * rate_hz / 1000), round(hop_ms * rate_hz / 1000)
    if not hop or frame % hop or frame % 2:
        raise ComponentError(
            f"logmel: at {rate_hz} Hz a frame of {frame_ms:g} ms is {frame} samples and a hop of {hop_ms:g} ms is {hop}; "
            "expected an even frame that is a multiple of the hop."
        )
    if shape[1] < frame:
        raise ComponentError(
            f"logmel: samples of {shape[1]} are shorter than a frame of {frame} ({frame_ms:g} ms); choose a shorter one."
        )
    front = LogMel(shape[1], rate_hz, frame, hop, _edges_hz(num_mels, low_hz, high_hz or rate_hz / 2, rate_hz))
    empty = int((_triangles(frame, front.edges).sum(0) == 0).sum())
    if empty:
        raise ComponentError(
            f"logmel: {empty} of {num_mels} mels hold no bin of a frame of {frame_ms:g} ms ({rate_hz / frame:g} Hz each); "
            "choose fewer mels or a longer frame."
        )
    from limbeck.models import builder

    return OnSpectrograms(front, builder(Component.model_validate(model))(front.shape, num_classes))


def _edges_hz(num_mels: int, low_hz: float, high_hz: float, rate_hz: int) -> list[float]:
    """Frequencies that are equally far apart in mel: 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    if not low_hz < high_hz <= rate_hz / 2:
        raise ComponentError(
            f"logmel: mels from {low_hz:g} to {high_hz:g} Hz; expected less than half of {rate_hz} Hz, the lower one first."
        )
    mels = np.linspace(log10(1 + low_hz / 700), log10(1 + high_hz / 700), num_mels + 2)
    return [float(700 * (10**mel - 1)) for mel in mels]

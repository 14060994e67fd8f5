"""Which integers are multiplied: a consequence of the target's instruction set.

x86 without VNNI multiplies bytes with `vpmaddubsw`, which adds two products in 16 bits and saturates at 32,767:
2 x 255 x 127 does not fit, 2 x 255 x 64 does. Weights of 7 bits therefore give every processor the same sums.
(Activations of 7 bits would too, but ONNX has no rounding to 7 bits: what lies above the calibrated range leaves it.)
VNNI, AMX and ARM's dot products add in 32 bits. Our own ONNX Runtime sessions ask for exact sums (`limbeck.edge.session`), a
user's may not.
"""

from dataclasses import dataclass

import torch

INT8 = (-128, 127)
INT7 = (-64, 63)


@dataclass(frozen=True)
class Arithmetic:
    """Activations of a dtype, in all its range, times int8 weights in `weights`."""

    activations: torch.dtype
    weights: tuple[int, int]


ARITHMETICS: dict[str, Arithmetic] = {
    "u8s7": Arithmetic(torch.uint8, INT7),
    "u8s8": Arithmetic(torch.uint8, INT8),
    "s8s8": Arithmetic(torch.int8, INT8),
}

BEST_FOR = {"any": "u8s7", "avx2": "u8s7", "vnni": "u8s8", "dotprod": "s8s8"}
"""What `arithmetic: auto` means, by the target's `instructions`."""


def arithmetic_of(asked: str, instructions: str) -> str:
    """The arithmetic asked for; `auto` follows the target's instruction set, never the machine this runs on."""
    return BEST_FOR[instructions] if asked == "auto" else asked

"""Which numbers a network is computed in."""

import torch

from limbeck.params import Precision


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """`auto` computes in bf16 where the processor multiplies in it, not where it would emulate."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))

"""Instruction sets that files are made for, and how a processor shows that it has them."""

import contextlib
from functools import cache
from pathlib import Path

PROOF: dict[str, set[str]] = {
    "any": set(),
    "avx2": {"avx2"},
    "vnni": {"avx512_vnni", "avx_vnni", "amx_int8"},
    "dotprod": {"asimddp"},
}
"""What a processor reports of which has these instructions; one is enough."""


@cache
def this_one() -> tuple[str, frozenset[str]]:
    """The name of this machine's processor and what it reports to have; both empty where the system does not say."""
    name, flags = "", frozenset[str]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            if key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
    return name, flags

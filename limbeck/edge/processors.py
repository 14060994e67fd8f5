"""Instruction sets that files are made for, and how a processor shows that it has them."""

PROOF: dict[str, set[str]] = {
    "any": set(),
    "avx2": {"avx2"},
    "vnni": {"avx512_vnni", "avx_vnni", "amx_int8"},
    "dotprod": {"asimddp"},
}
"""What a processor reports of which has these instructions; one is enough."""

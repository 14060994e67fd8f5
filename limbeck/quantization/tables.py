"""Tables of embeddings in int8, each row by a scale of its own.

A row is read, not multiplied: it may have all 8 bits whatever multiplies bytes (Guan et al. 2019, Post-Training 4-bit
Quantization on Embedding Tables, section 2: one range per row costs little and keeps the error of large rows from small ones).
"""

import torch
from torch.fx import Node
from torchao.quantization.pt2e import PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec

INT8 = (-127, 127)
SMALLEST = 2.0**-24
"""Step of a row of zeros."""


def rows_in_int8() -> QuantizationSpec:
    """How a table is rounded: symmetric, by row."""
    return QuantizationSpec(
        dtype=torch.int8, quant_min=INT8[0], quant_max=INT8[1], qscheme=torch.per_channel_symmetric, ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=SMALLEST),
    )  # fmt: skip


def annotate_table(node: Node, key: str) -> None:
    """Mark the table of an embedding.

    One that is the weights of a layer too (tied embeddings) is rounded as they are, by output channel, which is by row: one
    tensor of bytes serves both. Where that layer stays float so does the table: its floats are in the file anyway.
    """
    table = node.args[0]
    assert isinstance(table, Node)
    marked = [user.meta[key].input_qspec_map.get(table) if key in user.meta else None for user in table.users]
    whole = [spec for user, spec in zip(table.users, marked, strict=True) if user.target != node.target]
    shared = next((spec for spec in marked if spec is not None), None)
    if None not in whole:
        node.meta[key] = QuantizationAnnotation(input_qspec_map={table: shared or rows_in_int8()}, _annotated=True)

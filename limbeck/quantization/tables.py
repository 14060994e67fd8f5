"""Tables of embeddings in int8 or int4, and weights in int4: each row, or output channel, by a scale of its own.

A row is read, not multiplied: it may have all 8 bits whatever multiplies bytes, or only 4, which halves the table (Guan et al.
2019, Post-Training 4-bit Quantization on Embedding Tables, section 2: one range per row costs little and keeps the error of
large rows from small ones; of 4 bits the range is searched, since clipping the largest numbers of a row pays).
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node
from torchao.quantization.pt2e import FakeQuantize, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec

Bits: TypeAlias = Literal[4, 8]

LEVELS: dict[Bits, tuple[int, int]] = {8: (-127, 127), 4: (-8, 7)}
SMALLEST = 2.0**-24
"""Step of a row of zeros."""
SMALLEST_STEP = 2**-12
"""Of what is multiplied."""
SHARES = tuple(share / 16 for share in range(8, 18))
"""Steps that are tried, in those that leave the largest number of a row unclipped upwards."""

embedding = torch.ops.aten.embedding.default


class RowsByLeastSquares(PerChannelMinMaxObserver):  # type: ignore[misc]
    """For each row of a table, or output channel of weights, as it is now, not as it was, the range of least squared error.

    State: both ends of each row's range [N].
    """

    def forward(self, table: Tensor) -> Tensor:
        """[N, ...], handed on."""
        rows_ND = table.detach().flatten(1)
        smallest = float(self.eps)
        whole_N1 = (rows_ND.abs().amax(1, keepdim=True) / self.quant_max).clamp(min=smallest)
        best_N1, least_N1 = whole_N1, torch.full_like(whole_N1, torch.inf)
        for share in SHARES:
            step_N1 = (whole_N1 * share).clamp(min=smallest)
            rounded_ND = (rows_ND / step_N1).round_().clamp_(self.quant_min, self.quant_max).mul_(step_N1)
            error_N1 = rounded_ND.sub_(rows_ND).square_().sum(1, keepdim=True)
            best_N1 = torch.where(error_N1 < least_N1, step_N1, best_N1)
            least_N1 = torch.minimum(error_N1, least_N1)
        end_N = best_N1[:, 0] * (
            (self.quant_max - self.quant_min) / 2
        )  # torchao's step is half the range over half the levels
        for state, value_N in ((self.min_val, -end_N), (self.max_val, end_N)):
            state.resize_(value_N.shape)
            state.copy_(value_N)
        return table


def rows_in(bits: Bits, *, trained: bool, smallest: float = SMALLEST) -> QuantizationSpec:
    """How a table, or weights of 4 bits, are rounded: symmetric, by row. Of 8 bits no training needs to know, of 4 it does.

    `smallest` is the least step. Where rows are multiplied, a bias lies beside each: ONNX Runtime keeps it in 32 bits, in
    steps of this one times that of the activations, and a row of zeros must not make it overflow.
    """
    low, high = LEVELS[bits]
    kind = PerChannelMinMaxObserver if bits == 8 else RowsByLeastSquares
    made = kind.with_args(eps=smallest)
    if trained and bits == 4:
        made = FakeQuantize.with_args(observer=RowsByLeastSquares, eps=smallest)
    return QuantizationSpec(
        dtype=torch.int8, quant_min=low, quant_max=high, qscheme=torch.per_channel_symmetric, ch_axis=0,
        observer_or_fake_quant_ctr=made,
    )  # fmt: skip


def annotate_table(node: Node, key: str, bits: Bits, *, trained: bool) -> None:
    """Mark the table of an embedding.

    One that is the weights of a layer too (tied embeddings) is rounded once for both, by output channel, which is by row: one
    tensor serves them, of 8 bits as the layer's weights are, of 4 as tables are. Where that layer stays float so does the
    table: its floats are in the file anyway.
    """
    table = node.args[0]
    assert isinstance(table, Node)
    marked = {user: user.meta[key].input_qspec_map.get(table) if key in user.meta else None for user in table.users}
    layers = [user for user in marked if user.target != embedding]
    if any(marked[layer] is None for layer in layers):
        return
    shared = next((spec for spec in marked.values() if spec is not None), None)
    if shared is None or (bits == 4 and not any(marked[user] for user in marked if user.target == embedding)):
        shared = rows_in(bits, trained=trained, smallest=SMALLEST_STEP if layers else SMALLEST)
        for layer in layers:
            layer.meta[key].input_qspec_map[table] = shared
    node.meta[key] = QuantizationAnnotation(input_qspec_map={table: shared}, _annotated=True)

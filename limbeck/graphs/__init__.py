"""What is done to an ONNX graph between torch's exporter and the file: fewer bytes, less to compute, equal bytes everywhere."""

import onnx

from limbeck.graphs.blocks import take_blocks
from limbeck.graphs.exported import narrow_zeros, simplify_, strip, with_own_zero_points
from limbeck.graphs.pixels import take_pixels
from limbeck.graphs.tables import pack, unfold_late

__all__ = ["finish", "simplify_"]


def finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """All of it that is exact, in place."""
    model = unfold_late(take_blocks(take_pixels(narrow_zeros(model))))
    return strip(pack(with_own_zero_points(model)))

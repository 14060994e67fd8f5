"""Where a tensor's int8 range comes from, once calibration samples have been seen.

An observer is a component: a function of settings that returns a class for torchao's PT2E and the arguments of its own.
All of them stream: each keeps two numbers or a histogram of fixed size, however many samples it sees.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from pydantic import Field

Observer: TypeAlias = tuple[type, dict[str, Any]]


def min_max() -> Observer:
    """From the smallest to the largest value seen: nothing is clipped, outliers make every step larger."""
    from torchao.quantization.pt2e import MinMaxObserver

    return MinMaxObserver, {}


def histogram() -> Observer:
    """The histogram of torchao: ends move inwards quantile by quantile while the expected squared error falls."""
    from torchao.quantization.pt2e import HistogramObserver

    return HistogramObserver, {}


def percentile(*, share: Annotated[float, Field(gt=0.5, le=1)]) -> Observer:
    """`share` of the values lie below the upper end, as many above the lower one (Wu et al. 2020, arXiv:2004.09602)."""
    from limbeck.quantization.ranges import Percentile

    return Percentile, {"share": share}


def mse() -> Observer:
    """The range of least squared error, clipping and rounding together (Nagel et al. 2021, arXiv:2106.08295)."""
    from limbeck.quantization.ranges import LeastSquares

    return LeastSquares, {}


OBSERVERS: dict[str, Callable[..., Observer]] = {
    "min_max": min_max,
    "histogram": histogram,
    "percentile": percentile,
    "mse": mse,
}

"""The rungs of int8, cheapest first: calibrated, some layers left in float, trained. The first that keeps the contract ends it.

static_OBSERVER   every layer in int8; each observer of the list is tried, the best on validation goes on
mixed_N           that one with the N most sensitive layers in float, N = 1, 2, ...; not where all in float is not enough
qat               the best so far, trained quantized; not where `qat` is null
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from limbeck.checkpoint import Quantization, Spec
from limbeck.models import Network, torch_dtype
from limbeck.params import QuantizeParams
from limbeck.quantization import calibrate_, convert, describe, prepare
from limbeck.quantization.biases import correct_bias_


class Listener(Protocol):
    """Whom the ladder tells where it is; `limbeck.recording.Report` is one."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """So many of so many steps."""

    def log(self, message: str) -> None:
        """A line for people."""


@dataclass(frozen=True)
class Rung:
    """One int8 version: how it came about, its prepared graph, its quality on validation, whether that is enough."""

    name: str
    described: Quantization
    prepared: nn.Module = field(repr=False)
    validation: float
    kept: bool


def best_of(rungs: list[Rung]) -> Rung:
    """The highest on validation; of equals the one tried first, which is the cheaper one."""
    return max(rungs, key=lambda rung: rung.validation)


@dataclass(frozen=True)
class Ladder:
    """What every rung needs.

    Attributes:
        network: the float network, left as it is.
        x: the calibration split, raw samples [N, ...].
        arithmetic: a key of `ARITHMETICS`.
        quality_of: of a converted graph, on validation.
        float_quality: of the network itself, on validation.
        keeps: whether a quality on validation keeps the contract.
        train_: trains a prepared graph in place.
        report: told where the ladder is.

    """

    network: Network
    spec: Spec
    x: NDArray[np.generic]
    params: QuantizeParams
    arithmetic: str
    quality_of: Callable[[nn.Module], float]
    float_quality: float
    keeps: Callable[[float], bool]
    train_: Callable[[nn.Module], None]
    report: Listener

    def climb(self) -> list[Rung]:
        """Every rung tried, in order; `best_of` them is the answer, and keeps the contract if any does."""
        tried: list[Rung] = []
        for steps in (self._static, self._mixed, self._trained):
            tried += steps(tried)
            if best_of(tried).kept:
                break
        return tried

    def _static(self, _: list[Rung]) -> Iterator[Rung]:
        for observer in self.params.observers:
            described = describe(
                self.params.use, self.arithmetic, observer, table_bits=self.params.table_bits,
                weight_bits=self.params.weight_bits,
            )  # fmt: skip
            words = (observer.use.rpartition(":")[2], *observer.keywords.values())
            yield self._calibrated("_".join(map(str, ("static", *words))), described)

    def _mixed(self, tried: list[Rung]) -> Iterator[Rung]:
        from limbeck.quantization.sensitivity import most_sensitive

        if not self.keeps(self.float_quality):
            return
        base = best_of(tried)
        ranked = most_sensitive(base.prepared, self.network, self.x, self.report.progress)
        left: tuple[str, ...] = ()
        for name in islice(ranked, self.params.max_float_layers):
            left += (name,)
            rung = self._calibrated(f"mixed_{len(left)}", base.described.model_copy(update={"float_layers": left}))
            yield rung
            if rung.kept:
                break

    def _trained(self, tried: list[Rung]) -> Iterator[Rung]:
        if self.params.qat is None:
            return
        described = best_of(tried).described.model_copy(update={"trained": True})
        prepared = self._prepare(described)
        self.train_(prepared)
        yield self._rung("qat", described, prepared)

    def _calibrated(self, name: str, described: Quantization) -> Rung:
        prepared = self._prepare(described)
        calibrate_(prepared, self.x, self.params.batch_size)
        correct_bias_(prepared, self.network, self.x)
        return self._rung(name, described, prepared)

    def _prepare(self, described: Quantization) -> nn.Module:
        return prepare(self.network, described, self.spec.shape, torch_dtype(self.spec.dtype))

    def _rung(self, name: str, described: Quantization, prepared: nn.Module) -> Rung:
        quality = self.quality_of(convert(prepared))
        rung = Rung(name, described, prepared, quality, self.keeps(quality))
        self.report.log(f"{name}: {quality:.4f} on validation, {'enough' if rung.kept else 'not enough'}")
        return rung

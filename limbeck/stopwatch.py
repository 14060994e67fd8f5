"""How long a network takes as it would ship: exported, and measured by its target's own device."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import quantization
from limbeck.atomic import write_json
from limbeck.checkpoint import Spec
from limbeck.components import Component, bind
from limbeck.devices import DEVICES
from limbeck.errors import DeviceError
from limbeck.export import to_onnx
from limbeck.models import Network, num_params
from limbeck.params import Instructions, LatencyParams, MeasureParams
from limbeck.pruning import cut_spec
from limbeck.quantization.arithmetic import arithmetic_of

RESAMPLES = 1000
"""Of rounds, behind the interval of each measurement."""

NUM_CALIBRATION = 256
"""Samples that are shown to the quantizer: ranges change no bytes and no time."""

CALIBRATION_BATCH = 32

MOST_TRIES = 3
"""How often a network is measured that may or may not be fast enough."""


class Listener(Protocol):
    """Whom a stopwatch tells; `limbeck.recording.Report` is one."""

    scratch: Path

    def progress(self, done: int, total: int, note: str = "") -> None:
        """So many of so many steps."""

    def log(self, message: str) -> None:
        """A line."""


class Stopwatch:
    """Measures cut networks. What it saw it keeps in the scratch folder: widths are measured once, over a kill, too.

    Args:
        spec: of the network before it is cut.
        device: the target's.
        threads: of one inference.
        batch_size: samples per inference.
        latency: which file to measure, and how long.
        instructions: of the target, which say what an int8 file multiplies.
        samples: [N, ...] to calibrate one with.
        opset: of the exported file.
        seed: of the order of rounds, and of resampling.
        report: told of progress; its scratch folder remembers.

    """

    def __init__(
        self,
        spec: Spec,
        device: Component,
        threads: int,
        batch_size: int,
        latency: LatencyParams,
        *,
        instructions: Instructions,
        samples: NDArray[np.generic],
        opset: int,
        seed: int,
        report: Listener,
    ) -> None:
        self._spec, self._opset, self._report = spec, opset, report
        self._variant, self._arithmetic = latency.variant, arithmetic_of("auto", instructions)
        self._samples = samples[:NUM_CALIBRATION]
        self._measure: Callable[..., dict[str, Any]] = bind(device, DEVICES, "device")
        self._asked = (threads, batch_size)
        self._how = MeasureParams(
            warmup_runs=latency.runs_per_round,
            bootstrap=RESAMPLES,
            seed=seed,
            **latency.model_dump(exclude={"variant", "max_p95_ms"}),
        )
        self._limit = latency.max_p95_ms
        self._memory = report.scratch / "latency.json"
        self._seen: dict[str, dict[str, float]] = (
            json.loads(self._memory.read_text(encoding="utf-8")) if self._memory.exists() else {}
        )

    def p95_ms(self, network: Network) -> dict[str, float]:
        """A network's p95 in ms with its 95 % interval.

        While the interval holds the limit it is measured again, and the shorter time counts: whatever else a machine
        does only adds to it, and a network cut for that would be cut for nothing.

        Raises:
            DeviceError: the device cannot measure files that were just made.
            EdgeError: onnxruntime cannot run the file.
            ExportError: the network cannot be exported.

        """
        with torch.random.fork_rng(devices=[]):  # what was measured leaves chance as it was
            cut = cut_spec(self._spec, network)
        widths = [f"{name}={width.outputs}" for name, width in sorted(cut.cuts.items())]
        shape = " ".join([*widths, *(f"{name}=0" for name in cut.skipped)])
        if shape not in self._seen:
            file = self._report.scratch / "candidate.onnx"
            with torch.random.fork_rng(devices=[]):
                to_onnx(file, self._shipped(network), self._spec, self._opset, {})
            found = self._measured(file)
            for _ in range(MOST_TRIES - 1):
                if not found["low"] <= self._limit < found["high"]:
                    break
                found = min(found, self._measured(file), key=lambda tried: tried["high"])
            self._seen[shape] = found
            write_json(self._memory, self._seen)
            self._report.log(
                f"{num_params(network):,} parameters, {self._variant}: p95 {found['value']:.4g} ms [{found['low']:.4g}, {found['high']:.4g}]"
            )
        return self._seen[shape]

    def _shipped(self, network: Network) -> nn.Module:
        """The network as it is, or in int8: any calibration is as fast as what the ladder would find."""
        if self._variant == "model.fp32":
            return network
        how = quantization.describe("static", self._arithmetic, Component(use="min_max"))
        return quantization.calibrated(network, self._spec, how, self._samples, CALIBRATION_BATCH)

    def _measured(self, file: Path) -> dict[str, float]:
        try:
            answer = self._measure({"candidate": file}, *self._asked, self._how, self._report.progress)
        except DeviceError as error:
            raise DeviceError(
                f"prune.latency needs a device that measures at once. {error} Or cut to a prune.ratio."
            ) from None
        found: dict[str, float] = answer["variants"]["candidate"]["p95_ms"]
        return found

    def upper_p95_ms(self, network: Network) -> float:
        """The upper bound of that interval: what a cut is chosen by."""
        return self.p95_ms(network)["high"]

    @property
    def num_measured(self) -> int:
        """How many different networks were measured."""
        return len(self._seen)

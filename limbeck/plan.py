"""Before any training: which clauses of its contract a target's student can keep, and a refusal where none helps.

Bytes, time and memory of a file do not depend on what its weights say. So the untrained student is exported and
measured on the target's device: as it is, cut as `prune` asks, and each in int8 as the first rung of `quantize` makes it.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from limbeck import models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import bind
from limbeck.data.splits import Meta, read, read_meta
from limbeck.devices import DEVICES
from limbeck.distillation import begun, of_teacher
from limbeck.edge import EdgeError
from limbeck.errors import DataError, DeviceError, ParamsError
from limbeck.export import to_onnx
from limbeck.models import Network
from limbeck.params import Params, PruneParams, Unused
from limbeck.pruning import cut_spec, prune_
from limbeck.quantization.arithmetic import arithmetic_of
from limbeck.selection import ADVICE, FP32, INT8, Clause, cost_clauses, hold
from limbeck.stopwatch import NUM_CALIBRATION, Stopwatch

FOLDER = Path(".limbeck/plan")
"""Where the files are left: `limbeck-edge bench` measures them on a device that is elsewhere."""

BEFORE = ("student", "student.int8")
LABELS = {
    "student": "before pruning, fp32",
    "student.int8": "before pruning, int8",
    FP32: "after pruning, fp32",
    INT8: "after pruning, int8",
}
UNPRUNED = {FP32: "student, fp32", INT8: "student, int8"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """One exported network."""

    label: str
    path: Path
    num_params: int
    macs: int


@dataclass
class Plan:
    """What can be said of a target.

    Attributes:
        files: by variant; what would ship is `model.fp32` and `model.int8`.
        latency: the device's answer; None where it could not measure.
        clauses: held against what would ship.
        notes: what the reader should know.
        refusal: why the contract cannot be kept; empty where it may be.

    """

    target: str
    files: dict[str, File] = field(default_factory=dict)
    latency: dict[str, Any] | None = None
    clauses: dict[str, list[Clause]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusal: str = ""


def cannot_be(clause: Clause) -> bool:
    """Whether even the bound that speaks for a clause breaks it."""
    return clause.low > clause.allowed


def plan(params: Params, data: Path, targets: list[str], say: Say) -> list[Plan]:
    """Plan some targets of a params file.

    Args:
        params: the whole file.
        data: what `prepare` wrote: shape, classes, samples to calibrate with.
        targets: their names.
        say: told what is being done.

    Raises:
        DataError: the data is not prepared.
        ComponentError: a component does not exist or does not take its keywords.
        CheckpointError: a stored student that a target starts from is none, or not for this data.

    """
    meta, samples = read_meta(data), read(data, "calibration")[0][:NUM_CALIBRATION]
    return [_Planner(params, name, data, meta, samples, say).plan() for name in targets]


@dataclass
class _Planner:
    """Plans one target."""

    params: Params
    name: str
    data: Path
    meta: Meta
    samples: NDArray[np.generic]
    log: Say

    def __post_init__(self) -> None:
        self.target = self.params.targets[self.name]
        self.scratch = FOLDER / self.name
        self.made = Plan(self.name)
        self.sample = torch.from_numpy(self.samples[:1].copy())

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Nothing: a measurement takes seconds."""

    def plan(self) -> Plan:
        """Export, measure, hold against the contract."""
        made = self.made
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        try:
            self.export()
        except ParamsError as error:  # a budget that no cut reaches
            made.refusal = f"{self.name}: {error}"
        try:
            self.measure()
        except DeviceError as error:
            made.notes.append(f"{self.name}: no time and memory: {error} The files are in {self.scratch}.")
        except EdgeError as error:
            made.refusal = made.refusal or f"{self.name}: {error} (export.opset is {self.target.export.opset})"
        made.clauses = {variant: self.clauses(variant) for variant in (FP32, INT8) if variant in made.files}
        is_by_lot = not isinstance(self.target.prune, Unused) and self.target.prune.scope == "block"
        if made.clauses and not is_by_lot and all(any(map(cannot_be, held)) for held in made.clauses.values()):
            lines = [f"{self.name}: no variant can keep the contract, whatever training gives."]
            for variant, held in made.clauses.items():
                lines += [f"  {made.files[variant].label}: {c}; {ADVICE[c.clause]}" for c in held if cannot_be(c)]
            made.refusal = made.refusal or "\n".join(lines)
        return made

    def export(self) -> None:
        """Write every variant as ONNX.

        Raises:
            ParamsError: `prune` asks for what no cut reaches.

        """
        meta, target = self.meta, self.target
        # as long as those of what ships
        notes = {"data": meta.digest, "teacher": "0" * 64, "name": self.params.name}
        for variant, spec, network, exported in self.networks():
            self.log(f"{self.name}: {self.label(variant)} as ONNX")
            path = self.scratch / f"{variant}.onnx"
            to_onnx(path, exported, spec, target.export.opset, notes)
            macs = models.count_macs(network, self.sample)
            self.made.files[variant] = File(self.label(variant), path, models.num_params(network), macs)

    def networks(self) -> Iterator[tuple[str, Spec, Network, nn.Module]]:
        """Variant, spec, float network, and what is exported of it."""
        target = self.target
        torch.manual_seed(self.params.seed)
        if target.student.is_teacher:
            spec, network = self.teacher()
        else:
            spec, network = begun(target.student, self.data, self.params.seed)
            network.eval()
            fresh = network.modules() if target.student.warm is None else ()
            for module in fresh:  # a fresh norm folds into a bias of zeros, which no file stores
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    nn.init.normal_(module.bias)
        if not isinstance(target.prune, Unused):
            yield from self.both(*BEFORE, spec, network)
            spec = self.cut_(network, spec, target.prune)
        yield from self.both(FP32, INT8, spec, network)

    def teacher(self) -> tuple[Spec, Network]:
        """The teacher or its member, for a student that is none other.

        Raises:
            DataError: it is not there yet.
            CheckpointError: it has no such member.

        """
        folder = self.data.parent / "models/teacher"
        if not folder.is_dir():
            raise DataError(
                f"{self.name}: its student is the teacher, and {folder} is missing; run `dvc repro teacher`."
            )
        return of_teacher(self.target.student, folder)

    def both(
        self, as_float: str, as_int8: str, spec: Spec, network: Network
    ) -> Iterator[tuple[str, Spec, Network, nn.Module]]:
        """A network, and the same in int8 where the target asks for it."""
        yield as_float, spec, network, network
        quantize = self.target.quantize
        if isinstance(quantize, Unused):
            return
        self.log(f"{self.name}: {self.label(as_int8)}, quantizing")
        arithmetic = arithmetic_of(quantize.arithmetic, self.target.instructions)
        described = quantization.describe(
            quantize.use,
            arithmetic,
            quantize.observers[0],
            table_bits=quantize.table_bits,
            weight_bits=quantize.weight_bits,
        )
        yield (
            as_int8,
            spec,
            network,
            quantization.calibrated(network, spec, described, self.samples, quantize.batch_size),
        )

    def cut_(self, network: Network, spec: Spec, prune: PruneParams) -> Spec:
        """Cut as `prune` asks, in place, channels judged by magnitude, blocks by lot: of a training there is nothing to see yet."""
        settings = prune.model_dump(include=set(PruneParams.model_fields))
        untrained = PruneParams.model_validate({**settings, "use": "random" if prune.scope == "block" else "magnitude"})
        target, p95_ms = self.target, None
        if prune.latency is not None:
            p95_ms = Stopwatch(
                spec, target.device, target.threads, target.benchmark.batch_size, prune.latency,
                instructions=target.instructions, samples=self.samples, opset=target.export.opset,
                seed=self.params.seed, report=self,
            ).upper_p95_ms  # fmt: skip
        *_, last = prune_(network, untrained, self.sample, p95_ms=p95_ms)
        if prune.scope == "block":
            self.made.notes.append(
                f"{self.name}: which blocks go is for the trained network to say; here, by lot: bytes and times are an estimate"
            )
        if prune.scope == "global":
            self.made.notes.append(f"{self.name}: trained weights rank otherwise; widths after pruning are an estimate")
        if prune.ratio is None:
            what = "blocks" if prune.scope == "block" else "channels"
            self.made.notes.append(f"{self.name}: {last.share:.0%} of the {what} have to go")
        return cut_spec(spec, network)

    def label(self, variant: str) -> str:
        """What the table calls a variant."""
        return (UNPRUNED if isinstance(self.target.prune, Unused) else LABELS)[variant]

    def measure(self) -> None:
        """Time and memory of every file, on the device.

        Raises:
            DeviceError: it cannot measure them.
            EdgeError: its onnxruntime cannot run one.

        """
        if self.made.files:
            self.log(f"{self.name}: measuring")
            device = bind(self.target.device, DEVICES, "device")
            files = {variant: file.path for variant, file in self.made.files.items()}
            how = (self.target.threads, self.target.benchmark.batch_size, self.params.measure)
            self.made.latency = device(files, *how, self.progress)

    def clauses(self, variant: str) -> list[Clause]:
        """What a variant's figures say of the contract."""
        contract = self.target.contract
        if self.made.latency is not None:
            return cost_clauses(variant, self.made.latency, contract)
        return [hold("max_size_kb", contract.max_size_kb, self.made.files[variant].path.stat().st_size / 1000)]


def render(plans: list[Plan]) -> RenderableType:
    """The plans as a table, and what each file that would ship keeps."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("target", "untrained network", "params", "MACs", "bytes", "p50 ms", "p95 ms", "memory MB"):
        table.add_column(column, justify="left" if column in ("target", "untrained network") else "right", no_wrap=True)
    lines = []
    for made in plans:
        for variant, file in made.files.items():
            cells = [made.target, file.label, f"{file.num_params:,}", f"{file.macs:,}", f"{file.path.stat().st_size:,}"]
            if made.latency is not None:
                row = made.latency["variants"][variant]
                cells += [f"{row[key]['value']:.3f}" for key in ("p50_ms", "p95_ms")] + [f"{row['peak_memory_mb']:.1f}"]
            table.add_row(*cells)
        lines += [f"  {made.target} {made.files[v].label}: {_verdict(held)}" for v, held in made.clauses.items()]
        lines += [f"  {note}" for note in made.notes]
    head = Text("What the contracts leave to hope for", style="bold")
    foot = "Quality is for training to say. Before pruning, bytes and times are upper bounds."
    return Group(table, Text(), head, *map(Text, lines), Text(), Text(foot, style="dim"))


def _verdict(held: list[Clause]) -> str:
    if broken := [str(clause) for clause in held if cannot_be(clause)]:
        return f"cannot keep {'; '.join(broken)}"
    if unsure := [str(clause) for clause in held if not clause.proven]:
        return f"may keep {'; '.join(unsure)}"
    return f"keeps {', '.join(clause.clause for clause in held)}"

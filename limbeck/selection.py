"""The contract decides which file ships. Pure: figures in, a decision or a refusal out.

Validation chooses, test examines. Each candidate's quality on *validation*, its bytes, latency and memory say
whether it keeps the contract; the smallest that does is chosen. Then its quality on *test* is the exam, once:
a chosen file that fails it is refused, and no other candidate is tried, because that would be choosing on
the very samples that are to say how good the choice is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.errors import ContractBroken
from limbeck.params import ContractParams

FP32, INT8 = "model.fp32", "model.int8"
CANDIDATES = (FP32, INT8)

QUALITY_ADVICE = "distil or recover longer, cut less (prune.ratio), or let quantize.qat train for more epochs"
ADVICE = {
    "max_drop": QUALITY_ADVICE,
    "min_quality": QUALITY_ADVICE,
    "max_size_kb": "cut more (prune.ratio), choose a narrower student.model, or quantize",
    "max_p95_ms": "cut until it is kept (prune.latency), choose a shallower student.model, or allow more threads",
    "max_peak_memory_mb": "choose a narrower student.model, or a smaller benchmark.batch_size",
    "max_slowdown": "int8 does not pay for this network on this device: quantize: {use: none}, or a wider student",
}
FLOORS = ("min_quality", "min_gain")
"""Clauses of which more is better."""
UNITS = {"max_size_kb": " kB", "max_p95_ms": " ms", "max_peak_memory_mb": " MB", "max_slowdown": "x"}


@dataclass(frozen=True)
class Clause:
    """One clause held against one variant's figure and its 95 % interval.

    Attributes:
        split: the split that quality was measured on, None for what is not measured on samples.
        allowed: the most, or of `min_quality` the least, that may be measured.
        kept: the estimate keeps it.
        proven: the bound that speaks against it keeps it too.

    """

    clause: str
    split: str | None
    allowed: float
    measured: float
    low: float
    high: float
    kept: bool
    proven: bool

    @property
    def is_floor(self) -> bool:
        """Whether more is better."""
        return self.clause in FLOORS

    def __str__(self) -> str:
        unit = UNITS.get(self.clause, "")
        name = f"{self.clause} on {self.split}" if self.split else self.clause
        interval = f" [{self.low:.4g}, {self.high:.4g}]" if self.low < self.high else ""
        return f"{name}: {'asked for' if self.is_floor else 'allowed'} {self.allowed:g}{unit}, measured {self.measured:.4g}{interval}{unit}"


@dataclass(frozen=True)
class Decision:
    """What ships and why."""

    target: str
    name: str
    verdict: str
    variant: str
    identity: str
    clauses: dict[str, list[Clause]]
    notes: list[str]

    def choice(self) -> dict[str, str]:
        """The content of `registry/T.json`: what was chosen, without the latencies, which differ from run to run."""
        return {"target": self.target, "name": self.name, "variant": self.variant, "identity": self.identity}


def hold(clause: str, allowed: float, estimate: Mapping[str, float] | float, split: str | None = None) -> Clause:
    """Compare a figure with what is allowed. A plain number is exact; NaN keeps nothing."""
    if isinstance(estimate, Mapping):
        value, low, high = estimate["value"], estimate["low"], estimate["high"]
    else:
        value = low = high = estimate
    kept, bound_keeps = (value >= allowed, low >= allowed) if clause in FLOORS else (value <= allowed, high <= allowed)
    return Clause(clause, split, allowed, value, low, high, kept, proven=kept and bound_keeps)


def quality_clauses(measured: Mapping[str, Any], contract: ContractParams, split: str) -> list[Clause]:
    """The clauses about quality, held against one variant's figures on one split."""
    figures = {"max_drop": measured["drop"], "min_quality": measured}
    limits = {clause: getattr(contract, clause) for clause in figures}
    return [hold(clause, limits[clause], figures[clause], split) for clause in figures if limits[clause] is not None]


def clauses_of(
    variant: str, quality: Mapping[str, Any], latency: Mapping[str, Any], contract: ContractParams
) -> list[Clause]:
    """Every clause that decides about a candidate; its quality is that on validation."""
    on_validation = quality_clauses(quality["variants"][variant]["validation"], contract, "validation")
    return on_validation + cost_clauses(variant, latency, contract)


def cost_clauses(variant: str, latency: Mapping[str, Any], contract: ContractParams) -> list[Clause]:
    """The clauses about bytes, time and memory, which need no trained network."""
    speed = latency["variants"][variant]
    found = [
        hold("max_size_kb", contract.max_size_kb, (speed["bytes"] + latency.get("tokenizer_bytes", 0)) / 1000),
        hold("max_p95_ms", contract.max_p95_ms, speed["p95_ms"]),
        hold("max_peak_memory_mb", contract.max_peak_memory_mb, speed["peak_memory_mb"]),
    ]
    if variant == INT8:
        found.append(hold("max_slowdown", contract.max_slowdown, latency["ratios"][f"{INT8}/{FP32}"]))
    return found


def eligible(clauses: Mapping[str, list[Clause]], require: str) -> list[str]:
    """The variants that keep (or are proven to keep) every clause, in the order given."""
    return [variant for variant, held in clauses.items() if all(getattr(clause, require) for clause in held)]


def choose(
    manifest: Mapping[str, Any], quality: Mapping[str, Any], latency: Mapping[str, Any], contract: ContractParams
) -> tuple[str, dict[str, list[Clause]]]:
    """The smallest candidate that keeps the contract on validation, and every candidate's clauses, by size.

    Raises:
        ContractBroken: none keeps every clause.

    """
    sizes = _sizes(manifest)
    clauses = {
        variant: clauses_of(variant, quality, latency, contract)
        for variant in sorted(sizes, key=lambda variant: sizes[variant])
    }
    candidates = eligible(clauses, contract.require)
    if not candidates:
        raise ContractBroken(_refusal(f"{manifest['name']}-{manifest['target']}", clauses, contract.require))
    return candidates[0], clauses


def judge(
    manifest: Mapping[str, Any],
    quality: Mapping[str, Any],
    latency: Mapping[str, Any],
    contract: ContractParams,
    *,
    identity: str,
) -> Decision:
    """Choose the smallest candidate that keeps the contract on validation, then examine it on test.

    A looser contract widens the choice and never makes the chosen file larger; it may still end in a
    refusal, when the smaller file that it admits fails the exam.

    Args:
        manifest: of the exported files (`manifest.json`).
        quality: `quality.json`.
        latency: `latency.json`.
        contract: the target's clauses.
        identity: sha256 of the manifest file.

    Raises:
        ContractBroken: no candidate keeps every clause, or the chosen one fails the exam.

    """
    name = f"{manifest['name']}-{manifest['target']}"
    chosen, clauses = choose(manifest, quality, latency, contract)
    exam = quality_clauses(quality["variants"][chosen]["test"], contract, "test")
    if failed := [clause for clause in exam if not getattr(clause, contract.require)]:
        raise ContractBroken(
            f"{chosen} of {name} was chosen on validation and fails the exam (require: {contract.require}); nothing "
            f"was registered.\n  {chosen}: {'; '.join(map(str, failed))}; {QUALITY_ADVICE}\n"
            "  Another variant is not tried: the test split would then choose. A larger data.split.validation "
            "makes the choice surer."
        )
    clauses[chosen] += exam
    return Decision(
        target=manifest["target"],
        name=name,
        verdict="proven" if all(clause.proven for clause in clauses[chosen]) else "kept",
        variant=chosen,
        identity=identity,
        clauses=clauses,
        notes=_notes(name, chosen, clauses, _sizes(manifest), contract.require),
    )


def _sizes(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of every candidate that was exported."""
    files = manifest["files"]
    return {variant: files[f"{variant}.onnx"]["bytes"] for variant in CANDIDATES if f"{variant}.onnx" in files}


def _refusal(name: str, clauses: Mapping[str, list[Clause]], require: str) -> str:
    lines = [f"no variant of {name} keeps its contract (require: {require}); nothing was registered."]
    for variant, held in clauses.items():
        lines += [f"  {variant}: {c}; {ADVICE[c.clause]}" for c in held if not getattr(c, require)]
    return "\n".join(lines)


def _notes(
    name: str, chosen: str, clauses: Mapping[str, list[Clause]], sizes: Mapping[str, int], require: str
) -> list[str]:
    """Why each candidate that does not ship does not, and what of the chosen one is not proven."""
    notes = []
    for variant, held in clauses.items():
        if variant == chosen:
            continue
        broken = [str(clause) for clause in held if not getattr(clause, require)]
        why = (
            "; ".join(broken) if broken else f"{sizes[variant]:,} B, {chosen} keeps the contract in {sizes[chosen]:,} B"
        )
        notes.append(f"{name}: {variant} does not ship: {why}.")
    unproven = [str(clause) for clause in clauses[chosen] if not clause.proven]
    if unproven:
        notes.append(f"{name}: {chosen} keeps its contract; not proven at 95 %: {'; '.join(unproven)}.")
    return notes

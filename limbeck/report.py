"""What a pipeline run says in the end: sentences, the table, pictures. Rendered from files alone.

Reads params.yaml, metrics/, plots/, export/ and registry/ below a workspace; writes report.md, a self-contained
report.html and its pictures.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limbeck import pages, pictures
from limbeck.atomic import replace
from limbeck.data.splits import read
from limbeck.edge import EdgeError
from limbeck.edge import manifest as manifest_file
from limbeck.edge.measure import predict
from limbeck.errors import ContractBroken, LimbeckError
from limbeck.params import load
from limbeck.selection import CANDIDATES, Clause, clauses_of, judge

VARIANTS = {"teacher": "teacher", "student": "student", "model.fp32": "pruned", "model.int8": "quantized"}
COLUMNS = (
    "target",
    "model",
    "quality % [95 %]",
    "parameters",
    "MACs",
    "bytes",
    "p50 ms",
    "p95 ms",
    "smaller",
    "faster",
    "contract",
)
SHORT_COLUMNS = ("target", "model", "quality % [95 %]", "params", "MACs", "bytes", "p50 ms", "p95", "smaller", "faster")
MARKS = {
    "max_drop": "drop",
    "min_quality": "quality",
    "max_size_kb": "size",
    "max_p95_ms": "p95",
    "max_peak_memory_mb": "memory",
    "max_slowdown": "not slower",
}
COUNTS = ("no", "one", "two", "three", "four", "five")


NUM_DRAWN = 3


@dataclass(frozen=True)
class Row:
    """One line of the table, in full and for a terminal; `ships` marks the variant that the contract chose."""

    cells: tuple[str, ...]
    short: tuple[str, ...]
    ships: bool = False


@dataclass
class Target:
    """What the files say of one target.

    Attributes:
        ships: the variant that was registered, of these very files; None when none was.
        refusal: why none can be.
        notes: why the other variant does not ship, and what is not proven.

    """

    name: str
    quality: dict[str, Any]
    latency: dict[str, Any]
    manifest: dict[str, Any]
    distill: dict[str, Any]
    quantize: dict[str, Any]
    clauses: dict[str, list[Clause]]
    ships: str | None = None
    refusal: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The variant to speak of: what ships, else the smallest one."""
        if self.ships:
            return self.ships
        return next(variant for variant in ("model.int8", "model.fp32") if variant in self.quality["variants"])


@dataclass(frozen=True)
class Rendered:
    """The same report three times."""

    markdown: str
    html_path: Path
    console: RenderableType


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def gather(root: Path) -> list[Target]:
    """Every target of `root`'s params.yaml that has been benchmarked."""
    targets = []
    for name, params in load(root / "params.yaml").targets.items():
        metrics = root / "metrics" / name
        quality, latency = _read(metrics / "quality.json"), _read(metrics / "latency.json")
        manifest = _read(root / "export" / name / "manifest.json")
        if not (quality and latency and manifest):
            continue
        clauses = {v: clauses_of(v, quality, latency, params.contract) for v in CANDIDATES if v in quality["variants"]}
        distill, quantize = (_read(metrics / f"{stage}.json") for stage in ("distill", "quantize"))
        target = Target(name, quality, latency, manifest, distill, quantize, clauses)
        identity = manifest_file.identity(root / "export" / name)
        try:
            decision = judge(manifest, quality, latency, params.contract, identity=identity)
            target.clauses, target.notes = decision.clauses, decision.notes
            registered = _read(root / "registry" / f"{name}.json")
            if (registered.get("identity"), registered.get("variant")) == (identity, decision.variant):
                target.ships = decision.variant
        except ContractBroken as refusal:
            target.refusal = str(refusal)
        targets.append(target)
    return targets


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _brief(number: float) -> str:
    """Three digits and a unit: 41554 -> 41.6k."""
    for unit in ("", "k", "M", "G"):
        if number < 1000 or unit == "G":
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError


def sentence(target: Target) -> str:
    """Two plain sentences: how much smaller and faster than the teacher, at what loss, what ships; what int8 took."""
    return _told(target) + ladder_sentence(target)


def ladder_sentence(target: Target) -> str:
    """What int8 costs on test against the network it was made from, and which rung of the ladder it took."""
    quality, rungs = target.quality["variants"], target.quantize.get("rungs")
    if not rungs or not {"model.fp32", "model.int8"} <= set(quality):
        return ""
    cost = quality["model.fp32"]["test"]["value"] - quality["model.int8"]["test"]["value"]
    chosen = target.quantize["rung"]
    count = rungs[chosen]["float_layers"]
    layers = f"{COUNTS[count] if count < len(COUNTS) else count} layer{'' if count == 1 else 's'} stayed float"
    training = "was needed" if chosen == "qat" else "did not help" if "qat" in rungs else "was not needed"
    short = "" if rungs[chosen]["kept"] else "; on validation no rung keeps the contract"
    return (
        f" int8 {'cost' if cost > -0.0005 else 'gained'} {_points(abs(cost))} points, {layers}, QAT {training}{short}."
    )


def _told(target: Target) -> str:
    variant = target.shown
    quality = target.quality["variants"][variant]["test"]
    smaller = target.latency["variants"]["teacher"]["bytes"] / target.latency["variants"][variant]["bytes"]
    ratio = target.latency["ratios"].get(f"teacher/{variant}", {}).get("value", float("nan"))
    speed = f"{1 / ratio:.1f}x slower" if ratio < 1 else f"{ratio:.1f}x faster"
    lost = quality["drop"]["value"]
    change = f"{_points(abs(lost))} points {'lost' if lost >= 0 else 'gained'}"
    told = f"`{target.name}`: {smaller:.0f}x smaller and {speed} than the teacher, {change}"
    gain = target.distill.get("gain")
    if gain:
        what = "from distillation" if gain["value"] >= 0 else "by distillation, which did harm"
        interval = f"[{_points(gain['low'])}, {_points(gain['high'])}]"
        told += (
            f", {100 * gain['value']:+.1f} {what} {interval} (one seed)"
            if gain["beyond_noise"]
            else f"; distillation gained nothing beyond the noise ({100 * gain['value']:+.1f} {interval}, one seed)"
        )
    if target.refusal:
        return told + ". It breaks its contract: nothing is registered."
    if not target.ships:
        return told + ". Not registered yet."
    return told + f". The {VARIANTS[variant]} model ships."


def witness_notes(target: Target) -> list[str]:
    """How many predictions of each file another processor shares."""
    witness = target.quality.get("witness")
    if not witness:
        return []
    who = witness.get("cpu", witness["use"])
    return [
        f"{target.manifest['name']}-{target.name}: {variant} gives {found['equal_predictions']:.2%} of "
        f"{witness['samples']:,} predictions alike on {who} ({witness['use']})."
        for variant, found in witness["variants"].items()
    ]


def _verdict(target: Target, variant: str) -> str:
    """The contract's clauses in a word each: the broken ones with their figures, else what is not yet proven."""
    if variant not in target.clauses:
        return "-"
    clauses = target.clauses[variant]
    broken = [
        f"{MARKS[c.clause]} {c.measured:.3g} {'<' if c.is_floor else '>'} {c.allowed:.3g}"
        for c in clauses
        if not c.kept
    ]
    if broken:
        return "broken: " + "; ".join(broken)
    unproven = [MARKS[c.clause] for c in clauses if not c.proven]
    kept = "kept" + (f", not proven: {', '.join(unproven)}" if unproven else " and proven")
    return f"{kept}; ships" if variant == target.ships else kept


def _shown(targets: list[Target]) -> Iterator[tuple[Target, str]]:
    """The teacher once, then student, pruned and quantized model of every target."""
    for index, target in enumerate(targets):
        for variant in VARIANTS:
            if variant in target.quality["variants"] and not (variant == "teacher" and index):
                yield target, variant


def rows(targets: list[Target]) -> Iterator[Row]:
    """A line per model."""
    for target, variant in _shown(targets):
        label = VARIANTS[variant]
        quality, speed = target.quality["variants"][variant]["test"], target.latency["variants"][variant]
        ratio = target.latency["ratios"].get(f"teacher/{variant}")
        teacher_bytes = target.latency["variants"]["teacher"]["bytes"]
        yield Row(
            cells=(
                "" if variant == "teacher" else target.name,
                label,
                f"{100 * quality['value']:.2f} [{_points(quality['low'])}, {_points(quality['high'])}]",
                f"{target.manifest['num_params'][variant]:,}",
                f"{target.manifest['macs'][variant]:,}",
                f"{speed['bytes']:,}",
                f"{speed['p50_ms']['value']:.3f}",
                f"{speed['p95_ms']['value']:.3f}",
                "1x" if variant == "teacher" else f"{teacher_bytes / speed['bytes']:.1f}x",
                "1x" if variant == "teacher" or not ratio else f"{ratio['value']:.1f}x",
                _verdict(target, variant),
            ),
            short=(
                "" if variant == "teacher" else target.name,
                label,
                f"{100 * quality['value']:.1f} [{_points(quality['low'])}, {_points(quality['high'])}]",
                _brief(target.manifest["num_params"][variant]),
                _brief(target.manifest["macs"][variant]),
                _brief(speed["bytes"]),
                f"{speed['p50_ms']['value']:.3f}",
                f"{speed['p95_ms']['value']:.3f}",
                f"{teacher_bytes / speed['bytes']:.0f}x",
                f"{ratio['value']:.1f}x" if ratio else "1x",
            ),
            ships=variant == target.ships,
        )


def drawings(root: Path, targets: list[Target]) -> Iterator[tuple[str, bytes]]:
    """Heading and PNG of: the Pareto picture, the training curves, the confusion of each file that ships."""
    yield "Size and latency against quality", pictures.png(pictures.pareto(list(_points_of(targets))))
    plots = root / "plots"
    curves = sorted(plots.glob("*.csv")) + [p for p in sorted(plots.glob("*/*.csv")) if p.stem != "confusion"]
    if curves:
        named = {" ".join(path.relative_to(plots).with_suffix("").parts): path for path in curves}
        yield "Training", pictures.png(pictures.training(named))
    for target in targets:
        answers = plots / target.name / "confusion.csv"
        if answers.exists():
            figure = pictures.confusion(answers, target.shown.removeprefix("model."))
            yield f"Confusion of `{target.name}`, {VARIANTS[target.shown]}, on test", pictures.png(figure)


def _points_of(targets: list[Target]) -> Iterator[pictures.Point]:
    for target, variant in _shown(targets):
        quality, speed = target.quality["variants"][variant]["test"], target.latency["variants"][variant]
        is_teacher = variant == "teacher"
        yield pictures.Point(
            label="teacher" if is_teacher else f"{target.name} {VARIANTS[variant]}",
            series="" if is_teacher else target.name,
            variant=variant,
            quality=100 * quality["value"],
            low=100 * quality["low"],
            high=100 * quality["high"],
            kilobytes=speed["bytes"] / 1000,
            milliseconds=speed["p50_ms"]["value"],
            ships=variant == target.ships,
        )


def _slug(heading: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in heading.partition("(")[0]).lower().split())


def drawn(images_NHWC: np.ndarray[Any, Any], captions: list[str]) -> str:
    """Small grey images side by side as text, each over its caption."""
    shades = " .:-=+*#%@"
    blocks = []
    for image, caption in zip(images_NHWC, captions, strict=True):
        lines = ["".join(2 * shades[int(value) * (len(shades) - 1) // 255] for value in line) for line in image[..., 0]]
        width = max(2 * image.shape[1], *(len(line) for line in caption.split("\n"))) + 3
        blocks.append([line.ljust(width) for line in [*lines, *caption.split("\n")]])
    return "\n".join("".join(parts).rstrip() for parts in zip(*blocks, strict=True))


def registry_lines(root: Path, targets: list[Target]) -> tuple[list[str], str]:
    """What the registry says: a line per version, and a champion pulled back, answering test samples.

    A registry that is away is a line of its own; samples that are no small grey images are not drawn.
    """
    from limbeck.tracking.registry import fetch, versions
    from limbeck.tracking.server import tracking_uri

    lines: list[str] = []
    samples = ""
    try:
        uri = tracking_uri(load(root / "params.yaml").tracking.uri, root)
        for target in targets:
            model = f"{target.manifest['name']}-{target.name}"
            found = versions(model, uri=uri)
            lines += found
            x, y = read(root / "data", "test")
            drawable = x.ndim == 4 and x.shape[-1] == 1 and max(x.shape[1:3]) <= 32
            if samples or not drawable or not any("champion" in line for line in found):
                continue
            firsts = np.unique(y, return_index=True)[1]
            picked = firsts[:: max(1, len(firsts) // NUM_DRAWN)][:NUM_DRAWN]
            with tempfile.TemporaryDirectory() as folder:
                version, champion = fetch(model, "champion", Path(folder), uri=uri)
                inputs = Path(folder) / "x.npy"
                np.save(inputs, np.array(x[picked]), allow_pickle=False)
                files = (champion, root / "export" / target.name / "teacher.onnx")
                answers = [predict(file, inputs, threads=1, batch_size=NUM_DRAWN).argmax(1) for file in files]
            classes = target.manifest["classes"]
            captions = [
                f"champion {classes[own]}\nteacher  {classes[teacher]}\ntruth    {classes[truth]}"
                for own, teacher, truth in zip(*answers, y[picked], strict=True)
            ]
            samples = f"{model} version {version}\n\n{drawn(np.array(x[picked]), captions)}"
    except (LimbeckError, EdgeError) as error:
        lines.append(str(error))
    return lines, samples


def next_steps(target: str) -> list[str]:
    """The next three commands, each with what it does."""
    return [
        f"{command:<49}{what}"
        for command, what in (
            (f"dvc exp run -S targets.{target}.prune.ratio=0.5", "change a ratio; only what follows runs again"),
            ("make ui", "runs and versions in the browser"),
            ("make run RECIPE=quick", "another task in its own workspace, see recipes/"),
        )
    ]


def _measured_at(target: Target) -> str:
    threads = target.latency.get("threads", 1)
    where = target.latency["machine"].get("cpu", "an unnamed processor")
    return f"at batch {target.latency['batch_size']}, {threads} thread{'s' if threads > 1 else ''}, on {where}"


def render(root: Path, out: Path) -> Rendered:
    """Write `out/report.md`, `out/report.html` and its pictures; hand back the same for the terminal.

    Args:
        root: the workspace whose files are read.
        out: folder of the files.

    Raises:
        LimbeckError: nothing has been benchmarked yet.
    """
    targets = gather(root)
    if not targets:
        raise LimbeckError(f"{root}/metrics holds no benchmarked target yet; run `dvc repro` or `make run` first.")
    table_rows = list(rows(targets))
    sentences = [sentence(target) for target in targets]
    notes = [note for t in targets for note in [*(t.notes or t.refusal.splitlines()), *witness_notes(t)]]
    lines_of_registry, samples = registry_lines(root, targets)
    notes = [note.strip() for note in notes + lines_of_registry]
    name = targets[0].manifest["name"]
    title = f"Limbeck: {name}"
    footer = f"Quality on {targets[0].quality['test_count']} test {targets[0].quality.get('test_unit', 'samples')}, computed here."
    for places in {_measured_at(target): None for target in targets}:
        footer += f" Latency {places}."
    if name == "digits":
        footer += " digits is the smoke test: 8x8 pixels, minutes of training. Figures that matter come from the recipes and benchmarks/results."
    shown = list(drawings(root, targets))
    steps = next_steps(targets[0].name)

    page = pages.Page(
        title=title,
        sentences=sentences,
        columns=COLUMNS,
        rows=[pages.Row(row.cells, row.ships) for row in table_rows],
        notes=notes,
        pictures=shown,
        samples_heading="The champion, pulled back from the registry",
        samples=samples,
        steps=steps,
        footer=footer,
    )
    html_path = page.write(out, "report")

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in SHORT_COLUMNS:
        table.add_column(column, justify="left" if column in ("target", "model") else "right", no_wrap=True)
    for row in table_rows:
        table.add_row(*row.short, style="bold green" if row.ships else None)
    verdicts = [Text(f"  {row.cells[0]} {row.cells[1]}: {row.cells[-1]}") for row in table_rows if row.cells[-1] != "-"]
    for heading, picture in shown:
        with replace(out / f"{_slug(heading)}.png") as partial:
            partial.write_bytes(picture)
    lines: list[RenderableType] = [Text(text) for text in sentences]
    lines += [
        Text(),
        table,
        Text(),
        Text("Contracts", style="bold"),
        *verdicts,
        Text(),
        *(Text(f"- {note}") for note in notes),
    ]
    if samples:
        lines += [
            Text(),
            Text("The champion, pulled back from the registry, on three test samples:", style="bold"),
            Text(samples),
        ]
    lines += [Text(), Text(footer, style="dim"), Text(), Text("Next:"), *(Text(f"  {line}") for line in steps)]
    return Rendered(page.markdown(), html_path, Group(*lines))

"""A data source into fixed splits."""

from typing import Any

from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.params import DataParams, Out
from limbeck.recording import Report


def run(*, out: Out, data: DataParams, seed: int, report: Report) -> dict[str, Any]:
    """Read the source, split it (stratified, seeded), store memory-mapped arrays and meta.json."""
    source = open_source(data.source)
    meta = splits.write(
        out, source, data.split, seed, max_overlap=data.max_overlap, progress=report.progress, warn=report.warn
    )
    report.log(f"{source.name}: " + ", ".join(f"{count} {name}" for name, count in meta.counts.items()))
    for window in meta.windows:
        report.log(
            f"{window.name}: {window.samples} new samples; {window.repeated} were there already, {window.unlabelled} have "
            "no label"
        )
    if meta.overlap:
        report.warn(f"{meta.overlap} test samples stand in another split, too.")
    return {
        "samples": dict(meta.counts), "classes": len(meta.classes), "overlap": meta.overlap, "skipped": meta.skipped,
    }  # fmt: skip

"""Quality and latency of the files that ship, on the device."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.atomic import replace, write_json
from limbeck.components import Component, bind
from limbeck.data.splits import read, read_meta
from limbeck.devices import DEVICES, agreement, lacks, refuse_lacking
from limbeck.edge import manifest
from limbeck.edge.measure import machine, predict
from limbeck.edge.tokenizer import NAME as TOKENIZER
from limbeck.evaluation import estimate, paired_difference, scorer
from limbeck.params import BenchmarkParams, Instructions, MeasureParams, Out, Unused
from limbeck.recording import Report

PREDICT_BATCH = 256


def run(
    *,
    data: Path,
    exported: Path,
    confusion: Out,
    latency: Out,
    device: Component,
    instructions: Instructions,
    threads: int,
    benchmark: BenchmarkParams,
    measure: MeasureParams,
    metric: str,
    report: Report,
) -> dict[str, Any]:
    """Measure every exported file on validation and test, and its latency and memory on the device."""
    described = manifest.read(exported)
    files = {name.removesuffix(".onnx"): exported / name for name in described["files"] if name.endswith(".onnx")}
    if lacks(machine(), instructions):
        report.warn(
            f"quality is computed on this machine, which lacks the target's instructions ({instructions}): int8 may "
            "answer better there than it does here."
        )
    score = scorer(metric)
    scores: dict[str, dict[str, Any]] = {variant: {} for variant in files}
    logits: dict[str, Any] = {}
    labels = {}
    for split in ("validation", "test"):
        _, labels[split] = read(data, split)
        for variant, file in files.items():
            logits[variant] = predict(file, data / split / "x.npy", threads=threads, batch_size=PREDICT_BATCH)
            scores[variant][split] = score(logits[variant], labels[split])
    quality: dict[str, Any] = {}
    for variant in files:
        quality[variant] = {}
        for split, own in scores[variant].items():
            drop = paired_difference(scores["teacher"][split], own, measure.bootstrap, measure.seed)
            quality[variant][split] = {**estimate(own, measure.bootstrap, measure.seed), "drop": drop}
    classes = np.array(read_meta(data).classes)
    # Which of them ships is decided later. No dots in the names of columns: DVC's plots would take them for nesting.
    candidates = {name.removeprefix("model."): logits[name] for name in files if name.startswith("model.")}
    with replace(confusion) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["actual", *candidates])
        writer.writerows(
            zip(classes[labels["test"]], *(classes[said.argmax(1)] for said in candidates.values()), strict=True)
        )
    measured = bind(device, DEVICES, "device")(files, threads, benchmark.batch_size, measure, report.progress)
    refuse_lacking(measured["machine"], instructions)
    if TOKENIZER in described["files"]:  # what ships with either, and counts as size
        measured["tokenizer_bytes"] = described["files"][TOKENIZER]["bytes"]
    write_json(latency, measured)
    told = {"metric": metric, "test_count": len(labels["test"]), "variants": quality}
    if isinstance(benchmark.witness, Unused):
        return told
    shipping = {name: files[name] for name in files if name.startswith("model.")}
    witnessed = agreement(benchmark.witness, shipping, read(data, "validation")[0], threads, report.scratch)
    for name, found in witnessed["variants"].items():
        report.log(f"{name}: {found['equal_predictions']:.2%} of {witnessed['samples']:,} predictions equal elsewhere")
    return {**told, "witness": witnessed}

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
from limbeck.edge.measure import answering, machine
from limbeck.edge.tokenizer import NAME as TOKENIZER
from limbeck.evaluation import Scorer, estimate, paired_difference
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
    score = Scorer(metric, data)
    scores: dict[str, dict[str, Any]] = {variant: {} for variant in files}
    logits: dict[str, Any] = {}
    validation_x, _ = read(data, "validation")
    test_x, labels = read(data, "test")
    for variant, file in files.items():
        with answering(file, threads=threads, batch_size=PREDICT_BATCH) as answers:
            scores[variant]["validation"] = score(answers, "validation")
            logits[variant] = answers(test_x)
            scores[variant]["test"] = score(answers, "test", logits[variant])
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
        writer.writerows(zip(classes[labels], *(classes[said.argmax(1)] for said in candidates.values()), strict=True))
    measured = bind(device, DEVICES, "device")(files, threads, benchmark.batch_size, measure, report.progress)
    refuse_lacking(measured["machine"], instructions)
    if TOKENIZER in described["files"]:  # what ships with either, and counts as size
        measured["tokenizer_bytes"] = described["files"][TOKENIZER]["bytes"]
    write_json(latency, measured)
    judged = {"test_count": len(scores["teacher"]["test"]), "test_unit": "episodes" if score.is_played else "samples"}
    told = {"metric": metric, **judged, "variants": quality}
    if isinstance(benchmark.witness, Unused):
        return told
    shipping = {name: files[name] for name in files if name.startswith("model.")}
    witnessed = agreement(benchmark.witness, shipping, validation_x, threads, report.scratch)
    for name, found in witnessed["variants"].items():
        report.log(f"{name}: {found['equal_predictions']:.2%} of {witnessed['samples']:,} predictions equal elsewhere")
    return {**told, "witness": witnessed}

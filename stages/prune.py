"""Channels or blocks cut away, and the loss of quality trained back."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from limbeck import models
from limbeck.components import Component
from limbeck.data.splits import read
from limbeck.export import check_parity, to_onnx
from limbeck.labels import read_views
from limbeck.objectives import learned_of, objective_of
from limbeck.params import At, BenchmarkParams, DistillParams, Instructions, Out, PruneParams, TrainParams, Unused
from limbeck.prediction import NetworkScorer
from limbeck.pruning import cut_spec, prune_
from limbeck.recording import Report
from limbeck.stopwatch import Stopwatch
from limbeck.training import TrainingData, fit

PROOF_OPSET = 18


def run(
    *,
    data: Path,
    labels: Path,
    student: Path,
    out: Out,
    distill: Annotated[DistillParams | Unused, At("distill")],
    prune: Annotated[PruneParams | Unused, At("prune")],
    train: Annotated[TrainParams, At("student.train")],
    device: Component,
    threads: int,
    instructions: Instructions,
    benchmark: BenchmarkParams,
    metric: str,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Cut in steps, each trained back on the student's own soft labels; prove that the result exports.

    How the device measures, and its instructions, are asked for `prune.latency` alone.
    """
    spec, network = models.load(student)
    score = NetworkScorer(metric, data)
    x, _ = read(data, "validation")
    sample = torch.from_numpy(x[:1].copy())
    before = {"parameters": models.num_params(network), "macs": models.count_macs(network, sample)}
    quality_before = score.quality(network)
    if isinstance(prune, Unused):
        report.log("prune is {use: none}: the student passes through")
        report.curve({"epoch": 0, "arm": "unpruned", "validation": quality_before})
        shutil.copytree(student, out)
        return {"use": "none", "validation": quality_before, **before, "macs_kept": 1.0, "parameters_kept": 1.0}
    training = TrainingData.of(data, *read_views(data, labels, with_teacher=not isinstance(distill, Unused)))
    torch.set_num_threads(train.threads)
    torch.manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        objective = objective_of(distill)
        for number, batch in enumerate(training.batches(0, train.batch_size, seed)):
            if number == 0:
                learned_of(objective).begin(network, batch)
            yield objective(network, batch)

    stopwatch, p95_ms = None, None
    if prune.latency is not None:
        stopwatch = Stopwatch(
            spec, device, threads, benchmark.batch_size, prune.latency, instructions=instructions,
            samples=read(data, "calibration")[0], opset=PROOF_OPSET, seed=seed, report=report,
        )  # fmt: skip
        p95_ms = stopwatch.upper_p95_ms
    quality, share, is_cut = quality_before, 0.0, False
    steps = prune_(network, prune, sample, losses=losses, p95_ms=p95_ms, report=report)
    for number, step in enumerate(steps, start=1):
        share, is_cut = step.share, is_cut or step.has_cut
        if not step.has_cut:
            report.curve({"epoch": 0, "arm": f"step{number}", "validation": quality})
            continue
        cut_to = score.quality(network)
        fitted = fit(
            network, objective_of(distill), training, prune.recover.of(train),
            quality=score.quality, seed=seed + number, report=report, arm=f"step{number}",
        )  # fmt: skip
        quality = fitted.best
        report.log(
            f"step {number} of {prune.steps}: {step.macs:,} MACs, {metric} {cut_to:.4f} cut, {quality:.4f} recovered"
        )
    spec = cut_spec(spec, network)
    if not is_cut:
        report.warn(
            "nothing was cut; ask for a higher ratio, fewer MACs or a shorter latency, or lower prune.round_to."
        )
    models.save(out, spec, network)
    _, again = models.load(out)  # what is stored builds without torch-pruning and exports
    proof = report.scratch / "proof.onnx"
    to_onnx(proof, again, spec, PROOF_OPSET, {})
    check_parity(proof, again, x, max_difference=1e-3, min_equal=0.99)
    parameters, macs = models.num_params(again), models.count_macs(again, sample)
    figures = {
        "use": prune.use,
        "share": share,
        "validation": quality,
        "validation_before": quality_before,
        "parameters": parameters,
        "macs": macs,
        "macs_kept": macs / before["macs"],
        "parameters_kept": parameters / before["parameters"],
    }
    if spec.skipped:
        figures["skipped"] = list(spec.skipped)
    if stopwatch is not None:
        figures["latency"] = {"p95_ms": stopwatch.p95_ms(again), "networks_measured": stopwatch.num_measured}
        layers = {name: layer for name, layer in again.body.named_modules() if isinstance(layer, models.LAYERS)}
        figures["widths"] = {name: len(layer.weight) for name, layer in layers.items()}
        report.log(f"To have this very cut elsewhere: prune.ratio: {share:g}, prune.latency: null")
    return figures

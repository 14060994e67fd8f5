"""int8 by the cheapest rung that keeps the contract."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from limbeck import models, quantization
from limbeck.data.splits import read
from limbeck.labels import read_labels_meta, read_views
from limbeck.objectives import objective_of
from limbeck.params import At, DistillParams, Instructions, Out, QuantizeParams, TrainParams, Unused
from limbeck.prediction import NetworkScorer
from limbeck.quantization.arithmetic import arithmetic_of
from limbeck.quantization.ladder import Ladder, best_of
from limbeck.recording import Report
from limbeck.training import TrainingData, fit


def run(
    *,
    data: Path,
    labels: Path,
    pruned: Path,
    out: Out,
    distill: Annotated[DistillParams | Unused, At("distill")],
    quantize: Annotated[QuantizeParams | Unused, At("quantize")],
    train: Annotated[TrainParams, At("student.train")],
    instructions: Instructions,
    max_drop: Annotated[float | None, At("contract.max_drop")],
    min_quality: Annotated[float | None, At("contract.min_quality")],
    metric: str,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Climb the ladder until validation keeps what the contract asks for; store the best rung."""
    spec, network = models.load(pruned)
    quality_of = NetworkScorer(metric, data).quality
    float_quality = quality_of(network)
    report.curve({"epoch": 0, "arm": "float", "validation": float_quality})
    if isinstance(quantize, Unused):
        report.log("quantize is {use: none}: the float network passes through")
        shutil.copytree(pruned, out)
        return {"use": "none", "validation": float_quality}
    floors = (min_quality, None if max_drop is None else read_labels_meta(labels).teacher_quality - max_drop)
    needed = max(floor for floor in floors if floor is not None)

    def train_(prepared: nn.Module) -> None:
        assert quantize.qat is not None, "the ladder ends before"
        # averaging would blend the ranges' counters and switches with weights
        settings = quantize.qat.of(train).model_copy(update={"ema_decay": 0.0, "precision": "fp32"})
        torch.manual_seed(seed)
        views = read_views(data, labels, with_teacher=not isinstance(distill, Unused))
        training = TrainingData.of(data, *views)

        def settled_quality(prepared: nn.Module) -> float:
            with quantization.settled(prepared):  # ranges are learned from training samples alone
                return quality_of(prepared)

        fit(
            prepared, objective_of(distill), training, settings,
            quality=settled_quality, seed=seed, report=report, arm="qat",
        )  # fmt: skip

    torch.set_num_threads(train.threads)
    arithmetic = arithmetic_of(quantize.arithmetic, instructions)
    report.log(
        f"{arithmetic} for {instructions} instructions; {metric} {float_quality:.4f} in float, {needed:.4f} needed"
    )
    ladder = Ladder(
        network=network,
        spec=spec,
        x=read(data, "calibration")[0],
        params=quantize,
        arithmetic=arithmetic,
        quality_of=quality_of,
        float_quality=float_quality,
        keeps=lambda quality: quality >= needed,
        train_=train_,
        report=report,
    )
    tried = ladder.climb()
    chosen = best_of(tried)
    for rung in tried:
        if not rung.described.trained:  # training drew its own curve
            report.curve({"epoch": 0, "arm": rung.name, "validation": rung.validation})
    rungs = {
        rung.name: {
            "validation": rung.validation,
            "cost": float_quality - rung.validation,
            "kept": rung.kept,
            "float_layers": len(rung.described.float_layers),
        }
        for rung in tried
    }
    left = ", ".join(chosen.described.float_layers)
    verdict = "keeps the contract" if chosen.kept else "is the best, but no rung keeps the contract"
    report.log(f"{chosen.name} {verdict}" + (f"; in float: {left}" if left else ""))
    quantization.save(out, spec.model_copy(update={"quantization": chosen.described}), chosen.prepared)
    return {
        "use": quantize.use,
        "arithmetic": arithmetic,
        "float_validation": float_quality,
        "validation": chosen.validation,
        "rung": chosen.name,
        "float_layers": left,
        "rungs": rungs,
    }

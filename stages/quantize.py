"""int8, by calibration or by training when the contract asks."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import torch

from limbeck import models, quantization
from limbeck.data.splits import read
from limbeck.evaluation import predict, scorer
from limbeck.labels import read_labels_meta, read_views
from limbeck.objectives import objective_of
from limbeck.params import At, DistillParams, Out, QuantizeParams, TrainParams, Unused
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
    max_drop: Annotated[float | None, At("contract.max_drop")],
    min_quality: Annotated[float | None, At("contract.min_quality")],
    metric: str,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Calibrate; when validation falls below what the contract asks for, train quantized."""
    spec, network = models.load(pruned)
    score = scorer(metric)
    x, y = read(data, "validation")
    float_quality = float(score(predict(network, x), y).mean())
    if isinstance(quantize, Unused):
        report.log("quantize is {use: none}: the float network passes through")
        report.curve({"epoch": 0, "arm": "float", "validation": float_quality})
        shutil.copytree(pruned, out)
        return {"use": "none", "validation": float_quality, "qat": False}
    dtype = models.torch_dtype(spec.dtype)
    described = quantization.describe(quantize, trained=False)
    prepared = quantization.prepare(network, described, spec.shape, dtype)
    torch.set_num_threads(train.threads)
    quantization.calibrate_(prepared, read(data, "calibration")[0], quantize.batch_size)
    quality = float(score(predict(quantization.convert(prepared), x), y).mean())
    teacher_quality = read_labels_meta(labels).teacher_quality
    report.curve({"epoch": 0, "arm": "calibrated", "validation": quality})
    figures = {"use": quantize.use, "float_validation": float_quality, "calibrated_validation": quality}
    floors = (min_quality, None if max_drop is None else teacher_quality - max_drop)
    needed = max(floor for floor in floors if floor is not None)
    needs_qat = quality < needed
    report.log(
        f"calibrated int8: {metric} {quality:.4f} on validation, {100 * (teacher_quality - quality):.2f} points under "
        f"the teacher; {needed:.4f} is needed: " + ("training quantized follows" if needs_qat else "QAT is not needed")
    )
    if needs_qat:
        calibrated, calibrated_quality = (described, prepared), quality
        described = quantization.describe(quantize, trained=True)
        torch.manual_seed(seed)
        prepared = quantization.prepare(network, described, spec.shape, dtype)
        # averaging would blend observers' counters and switches with weights
        settings = quantize.qat.of(train).model_copy(update={"ema_decay": 0.0, "precision": "fp32"})
        fit(
            prepared, objective_of(distill), TrainingData.of(data, *read_views(data, labels, with_teacher=not isinstance(distill, Unused))),
            settings, score=score, seed=seed, report=report, arm="qat",
        )  # fmt: skip
        quality = float(score(predict(quantization.convert(prepared), x), y).mean())
        report.log(f"trained int8: {metric} {quality:.4f} on validation")
        figures["trained_validation"] = quality
        if quality < calibrated_quality:
            report.log("the calibrated one is better on validation and stays")
            (described, prepared), quality = calibrated, calibrated_quality
    quantization.save(out, spec.model_copy(update={"quantization": described}), prepared)
    return {**figures, "validation": quality, "qat": described.trained}

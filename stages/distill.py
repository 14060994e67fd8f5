"""A small network taught by the soft labels, and the same one without them."""

from pathlib import Path
from typing import Annotated, Any

import torch

from limbeck import models
from limbeck.atomic import write_json
from limbeck.checkpoint import Spec
from limbeck.data.splits import read, read_meta
from limbeck.evaluation import paired_difference, predict, scorer
from limbeck.labels import read_labels_meta, read_views
from limbeck.objectives import cross_entropy, objective_of, on_logits
from limbeck.params import At, DistillParams, Out, StudentParams, Unused
from limbeck.recording import Report
from limbeck.training import Fitted, TrainingData, fit


def run(
    *,
    data: Path,
    labels: Path,
    teacher: Path,
    out: Out,
    control: Out,
    student: StudentParams,
    distill: Annotated[DistillParams | Unused, At("distill")],
    bootstrap: Annotated[int, At("measure.bootstrap")],
    bootstrap_seed: Annotated[int, At("measure.seed")],
    metric: str,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Train the student on the labelled views; with `control: true` also its twin that has no teacher.

    The gain of distillation is the paired difference of both on the test split, which decides nothing here.
    """
    meta = read_meta(data)
    spec = Spec(
        model=student.model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std
    )
    score = scorer(metric)
    test_x, test_y = read(data, "test")

    def train(arm: str, *, taught: bool) -> tuple[models.Network, Fitted]:
        torch.manual_seed(seed)  # both arms start from equal weights
        network = models.build(spec)
        objective = on_logits(cross_entropy)
        if taught:
            objective = objective_of(
                distill, teacher=lambda: models.load(teacher)[1], student=lambda: models.build(spec)
            )
        fitted = fit(
            network, objective, TrainingData.of(data, *read_views(data, labels, with_teacher=taught)), student.train,
            score=score, seed=seed, report=report, arm=arm,
        )  # fmt: skip
        return network, fitted

    taught = not isinstance(distill, Unused)
    network, fitted = train("student", taught=taught)
    models.save(out, spec, network)
    size, teacher_size = models.num_params(network), read_labels_meta(labels).teacher_parameters
    if size > teacher_size:
        report.warn(f"the student has {size:,} parameters, its teacher {teacher_size:,}; is that meant?")
    figures: dict[str, Any] = {
        "validation": fitted.best,
        "parameters": size,
        "macs": models.count_macs(network, torch.from_numpy(test_x[:1].copy())),
        "objective": distill.use,
    }
    if fitted.kept != "student":
        figures["kept"] = fitted.kept
        report.log(f"the {fitted.kept} is kept, {metric} {fitted.best:.4f} on validation")
    if not isinstance(distill, Unused) and distill.control:
        twin, of_twin = train("control", taught=False)
        figures["control_validation"] = of_twin.best
        models.save(control, spec, twin)
        gain = paired_difference(
            score(predict(network, test_x), test_y),
            score(predict(twin, test_x), test_y),
            bootstrap,
            bootstrap_seed,
        )
        beyond = gain["low"] > 0 or gain["high"] < 0
        figures["gain"] = {**gain, "seeds": 1, "beyond_noise": beyond}
        report.log(
            f"gain of distillation {100 * gain['value']:+.2f} points [{100 * gain['low']:.2f}, {100 * gain['high']:.2f}], one seed"
            + ("" if beyond else ": none beyond the noise")
        )
    else:
        control.mkdir()
        write_json(control / "none.json", {"control": "not asked for"})
    return figures

"""A small network taught by the soft labels, and the same one without them."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import torch

from limbeck import models
from limbeck.atomic import write_json
from limbeck.checkpoint import Spec
from limbeck.data.splits import read
from limbeck.distillation import begun, of_teacher, train_student
from limbeck.evaluation import paired_difference
from limbeck.labels import read_labels_meta
from limbeck.params import At, DistillParams, Out, StudentParams, Unused
from limbeck.prediction import NetworkScorer
from limbeck.recording import Report
from limbeck.training import Fitted


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

    A student that is the teacher passes through, and so does a stored one of which nothing is tuned. A stored one's twin
    starts from the same weights.

    The gain of distillation is the paired difference of both on the test split, which decides nothing here.
    """
    score = NetworkScorer(metric, data)
    if student.is_teacher:
        return _pass_through(student, data, teacher, out, control, score, report)
    spec, start = begun(student, data, seed)
    before = {}
    if student.warm:
        before = {"tuned": student.warm.tune, "validation_before": score.quality(start)}
        if student.warm.tune == "nothing":
            return _untouched(spec, start, before, out, control, data, report)

    def train(arm: str, distill: DistillParams | Unused) -> tuple[models.Network, Fitted]:
        return train_student(
            student,
            distill,
            data=data,
            labels=labels,
            teacher=teacher,
            metric=metric,
            seed=seed,
            report=report,
            arm=arm,
        )

    network, fitted = train("student", distill)
    models.save(out, spec, network)
    size, teacher_size = models.num_params(network), read_labels_meta(labels).teacher_parameters
    if size > teacher_size:
        report.warn(f"the student has {size:,} parameters, its teacher {teacher_size:,}; is that meant?")
    figures: dict[str, Any] = {
        "validation": fitted.best,
        "parameters": size,
        "macs": models.count_macs(network, torch.from_numpy(read(data, "test")[0][:1].copy())),
        "objective": distill.use,
        **before,
    }
    if fitted.kept != "student":
        figures["kept"] = fitted.kept
        report.log(f"the {fitted.kept} is kept, {metric} {fitted.best:.4f} on validation")
    if not isinstance(distill, Unused) and distill.control:
        twin, of_twin = train("control", Unused(use="none"))
        figures["control_validation"] = of_twin.best
        models.save(control, spec, twin)
        gain = paired_difference(
            score.of_model(network, "test"),
            score.of_model(twin, "test"),
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
        _no_control(control, "not asked for")
    return figures


def _pass_through(
    student: StudentParams, data: Path, teacher: Path, out: Path, control: Path, score: NetworkScorer, report: Report
) -> dict[str, Any]:
    """The teacher or its member as it is: what follows makes it smaller, taught by the teacher's soft labels."""
    report.log(
        "student.model is {use: teacher}: the teacher passes through"
        if student.member is None
        else f"member {student.member} of the teacher passes through"
    )
    spec, network = of_teacher(student, teacher)
    x, _ = read(data, "validation")
    quality = score.quality(network)
    report.curve({"epoch": 0, "arm": "teacher", "validation": quality})
    if student.member is None:
        shutil.copytree(teacher, out)
    else:
        models.save(out, spec, network)
    _no_control(control, "the student is the teacher, or a member of it")
    return {
        "validation": quality,
        "parameters": models.num_params(network),
        "macs": models.count_macs(network, torch.from_numpy(x[:1].copy())),
        "objective": "none",
    }


def _untouched(
    spec: Spec, network: models.Network, before: dict[str, Any], out: Path, control: Path, data: Path, report: Report
) -> dict[str, Any]:
    """The stored student as it is: what follows calibrates, cuts or exports it anew."""
    report.log("student.model.tune is nothing: the stored student passes through")
    report.curve({"epoch": 0, "arm": "student", "validation": before["validation_before"]})
    models.save(out, spec, network)
    _no_control(control, "nothing is trained")
    x, _ = read(data, "validation")
    return {
        "validation": before["validation_before"],
        "parameters": models.num_params(network),
        "macs": models.count_macs(network, torch.from_numpy(x[:1].copy())),
        "objective": "none",
        **before,
    }


def _no_control(control: Path, why: str) -> None:
    control.mkdir()
    write_json(control / "none.json", {"control": why})

"""One student, taught: the core of the stage `distill`, and of `limbeck compare`.

It starts from fresh weights, or from a stored student (`model: {use: checkpoint}`) whose head grows with the classes.
"""

from pathlib import Path

import torch
from torch import nn

from limbeck import checkpoint, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import Meta, read_meta
from limbeck.errors import CheckpointError
from limbeck.kinds import kind_of
from limbeck.labels import read_views
from limbeck.models import Network
from limbeck.models.ensemble import member_of
from limbeck.models.features import head_of
from limbeck.models.growing import is_more, keep_rows_, with_classes
from limbeck.models.text import Inheriting
from limbeck.objectives import objective_of
from limbeck.params import DistillParams, StudentParams, Tune, Unused, WarmStart
from limbeck.prediction import NetworkScorer
from limbeck.training import Fitted, Progress, TrainingData, fit

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def on_one_scale(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel -> those of all channels together, about a whole number.

    In int8 such pixels need no arithmetic before the first layer: they are the whole numbers that it takes, and the mean is their
    zero point (`limbeck.graphs.pixels`).
    """
    zero = float(round(sum(mean) / len(mean)))
    spread = sum(s**2 + (m - zero) ** 2 for m, s in zip(mean, std, strict=True)) / len(mean)
    return (zero,) * len(mean), (round(spread**0.5, 6),) * len(std)


def spec_of(model: Component, meta: Meta) -> Spec:
    """What a student with fresh weights is to be, for prepared data."""
    mean, std = meta.mean, meta.std
    if kind_of(meta.shape, meta.dtype) == "image" and meta.dtype == "uint8":
        mean, std = on_one_scale(mean, std)
    return Spec(model=model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=mean, std=std)


def of_teacher(student: StudentParams, teacher: Path) -> tuple[Spec, Network]:
    """The teacher at `teacher`, or the member of it that the student is.

    Raises:
        CheckpointError: it has no such member.

    """
    spec, network = models.load(teacher)
    return (spec, network) if student.member is None else member_of(spec, network, student.member)


def begun(student: StudentParams, data: Path, seed: int) -> tuple[Spec, Network]:
    """A student before its training: fresh weights by seed, or a stored student, its head grown where there are more classes.

    The folder of a stored one stands beside `data`, or is a whole path.

    Raises:
        CheckpointError: it is missing, damaged, another one than its digest says, quantized, or not for these samples
            and classes; or not enough of it is tuned to learn classes that it does not know.

    """
    torch.manual_seed(seed)
    if student.warm is None:
        spec = spec_of(student.model, read_meta(data))
        return spec, models.build(spec)
    return stored(student.warm, data.parent / student.warm.folder, read_meta(data))


def stored(warm: WarmStart, folder: Path, meta: Meta) -> tuple[Spec, Network]:
    """A stored student for data as `meta` describes them; new rows of its head come from torch's current generator.

    Raises:
        CheckpointError: as `begun`.

    """
    if not folder.is_dir():
        raise CheckpointError(
            f"student.model.folder: {folder} is missing; write a whole path, or one that starts beside params.yaml."
        )
    theirs, state = checkpoint.read(folder)
    if (digest := checkpoint.digest_of(folder)) != warm.sha256:
        raise CheckpointError(
            f"{folder / checkpoint.SPEC} has sha256 {digest}, expected {warm.sha256}. If it was changed on purpose, write "
            "the new digest into student.model.sha256."
        )
    if theirs.quantization is not None:
        raise CheckpointError(
            f"{folder} is quantized; a student goes on learning in float. Take what prune or distill wrote, its model "
            "before quantize."
        )
    if (theirs.dtype, theirs.shape) != (meta.dtype, meta.shape):
        raise CheckpointError(
            f"{folder} takes {theirs.dtype} samples of shape {theirs.shape}, the data are {meta.dtype} of {meta.shape}; "
            "expected a student of the same samples. Prepare the data as they were prepared for it, or start from fresh "
            "weights: student.model: {use: resnet, ...}."
        )
    if theirs.classes == meta.classes:
        network = models.build(theirs)
        checkpoint.load_strictly_(network, state, folder)
        return theirs, network
    if not is_more(meta.classes, theirs.classes):
        raise CheckpointError(_other_classes(folder, theirs.classes, meta.classes))
    added = ", ".join(meta.classes[len(theirs.classes) :])
    if warm.tune != "all":
        raise CheckpointError(
            f"{folder} does not know {added}, whose rows of the head start from chance; student.model.tune: {warm.tune} would "
            "leave them so. Take tune: all."
        )
    known = models.build(theirs)
    checkpoint.load_strictly_(known, state, folder)
    sample = torch.zeros((1, *theirs.shape), dtype=models.torch_dtype(theirs.dtype))
    head = head_of(known.body, known.preprocess(sample))
    spec = with_classes(theirs, meta.classes, head)
    try:
        network = models.build(spec)
    except ValueError as error:  # an ensemble, whose members have heads of their own
        raise CheckpointError(f"{folder} cannot learn {added} beside its classes: {error}.") from error
    rest = {name: value for name, value in state.items() if not name.startswith(f"body.{head}.")}
    rows = {name: value for name, value in network.state_dict().items() if name.startswith(f"body.{head}.")}
    checkpoint.load_strictly_(network, rest | rows, folder)
    keep_rows_(network, state, head)
    return spec, network


def _other_classes(folder: Path, known: tuple[str, ...], found: tuple[str, ...]) -> str:
    what = f"{folder} answers {', '.join(known)}; the data have {', '.join(found)}"
    if lost := [name for name in known if name not in found]:
        return (
            f"{what}, without {', '.join(lost)}. Expected the known classes and new ones behind them: keep samples of every "
            "known class (replay does), or start from fresh weights."
        )
    return (
        f"{what}: the known classes in another order. Expected them first, as they were, and new ones behind them; the data "
        "source orders them (data.source.classes)."
    )


def tune_(network: Network, tune: Tune) -> None:
    """Freeze what is not to be tuned, in place.

    `norms` leaves the scale and shift of norms, as TENT adapts them together with the statistics (Wang et al. 2021, Tent:
    Fully Test-Time Adaptation by Entropy Minimization, section 3.2; there without labels), and all biases, as BitFit
    trains them (Ben Zaken et al. 2022, section 2). The statistics follow because the network is in training mode.

    Raises:
        CheckpointError: it has neither norms nor biases.

    """
    network.requires_grad_(tune == "all")
    if tune != "norms":
        return
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, NORMS) or name == "bias":
                parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise CheckpointError("the stored student has neither norms nor biases; take student.model.tune: all.")


def train_student(
    student: StudentParams,
    distill: DistillParams | Unused,
    *,
    data: Path,
    labels: Path,
    teacher: Path,
    metric: str,
    seed: int,
    report: Progress,
    arm: str,
) -> tuple[models.Network, Fitted]:
    """Train a student on the labelled views; `{use: none}` trains it on the same views without the teacher.

    Equal seeds start from equal weights and see equal batches, whatever teaches. A loss that trains two students has no
    second one where the first one is a stored student: a fresh one would be no peer.

    Args:
        student: its model and how it is trained.
        distill: what it minimizes.
        data: `data/` of prepare.
        labels: `labels/` of label.
        teacher: the teacher's checkpoint, for losses that keep it at work.
        metric: decides the best epoch.
        seed: of weights and batches.
        report: told of progress; its scratch folder holds the state of a killed run.
        arm: names the training in it.

    """
    spec, network = begun(student, data, seed)
    peer = None if student.warm else lambda: models.build(spec)
    objective = objective_of(distill, teacher=lambda: models.load(teacher)[1], student=peer)
    training = TrainingData.of(data, *read_views(data, labels, with_teacher=not isinstance(distill, Unused)))
    if student.warm:
        tune_(network, student.warm.tune)
    elif isinstance(network.body, Inheriting) and network.body.inherits and not isinstance(distill, Unused):
        network.body.inherit_(models.load(teacher)[1].body)  # its twin without a teacher starts by chance
    quality = NetworkScorer(metric, data).quality
    fitted = fit(network, objective, training, student.train, quality=quality, seed=seed, report=report, arm=arm)
    network.requires_grad_(True)
    return network, fitted

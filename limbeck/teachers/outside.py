"""Teachers that were not made here: weights in an architecture, or a checkpoint that another Limbeck wrote.

Both become what `teacher` writes: a spec with the network's *own* normalization, and the network. Whether it is
then taken as it is, fine-tuned, or given a head on frozen features is decided by `adapt`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck import checkpoint, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import Meta
from limbeck.errors import CheckpointError, ComponentError, ParamsError
from limbeck.models import MODELS, Network
from limbeck.models.features import head_of
from limbeck.models.growing import is_more, keep_rows_, with_classes
from limbeck.params import InputParams, Unused, WeightsTeacher
from limbeck.teachers import weights
from limbeck.teachers.misfit import advice, in_words
from limbeck.teachers.weights import Pairing, pair


@dataclass(frozen=True)
class Brought:
    """A teacher from outside, ready to answer: its head's name, and whether that head is fresh."""

    spec: Spec
    network: Network
    head: str
    has_new_head: bool


def own_input(given: InputParams, meta: Meta) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A teacher's mean and std by channel, in raw units.

    Raises:
        ParamsError: another number of channels than the data's (grey images may become several).

    """
    channels, num = meta.shape[-1], len(given.mean)
    if num not in (channels, 1) and not (len(meta.shape) == 3 and channels == 1):
        raise ParamsError(
            f"teacher.input.mean has {num} values, samples of {meta.shape} have {channels} channels; give one each."
        )
    unit = 255.0 if given.units == "0..1" else 1.0
    num_repeats = channels if num == 1 else 1
    mean, std = (tuple(value * unit for value in values) * num_repeats for values in (given.mean, given.std))
    return mean, std


def from_weights(params: WeightsTeacher, meta: Meta, file: Path) -> Brought:
    """Fill a named or imported architecture with a file's tensors.

    Args:
        params: what the file is and the architecture; its `adapt` allows a head that does not fit.
        meta: the data's.
        file: where `params.file` was found.

    Raises:
        CheckpointError: the file cannot be read, or does not fit: which tensors, and what would.
        ComponentError: the architecture cannot be built, or cannot take these samples.

    """
    mean, std = own_input(params.input, meta)
    spec = Spec(
        model=params.model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes,
        mean=mean, std=std, size=params.input.size,
    )  # fmt: skip
    found = weights.read(file, sha256=params.sha256, key=params.key, prefix=params.prefix)
    if params.match == "order" and file.suffix == weights.SAFETENSORS:
        raise CheckpointError(f"{file} keeps its tensors sorted, not in the order of definition; use match: names.")
    network = built(spec)
    head = find_head(network, spec)
    own = network.body.state_dict()
    whole = pair(own, found, params.match)
    pairing = whole if isinstance(params.adapt, Unused) else whole.without(head)
    if not pairing.fits:
        lines = "\n".join(f"  {line}" for line in advice(spec, whole, own, found, head, params, file))
        raise CheckpointError(f"{file} does not fit {in_words(params.model)}:\n{pairing}\n{lines}")
    network.body.load_state_dict(pairing.state, strict=False)
    return Brought(spec, network.eval(), f"body.{head}", pairing is not whole)


def from_checkpoint(folder: Path, meta: Meta, *, sha256: str | None, trust: tuple[str, ...], adapts: bool) -> Brought:
    """Take a checkpoint that Limbeck wrote, for data of the same classes, or of others where it `adapts`.

    Where the data have its classes and more behind them, the head keeps its rows and gets new ones; for any other
    classes it is fresh.

    Raises:
        CheckpointError: it is damaged, another one than `sha256`, quantized, names an import path that is not
            trusted, or answers other classes.

    """
    theirs, state = checkpoint.read(folder)
    if sha256 is not None and (digest := checkpoint.digest_of(folder)) != sha256:
        raise CheckpointError(
            f"{folder / checkpoint.SPEC} has sha256 {digest}, expected {sha256}. If it was changed on purpose, write the "
            "new digest into teacher.sha256."
        )
    for use in _names(theirs.model):
        if use not in MODELS and use not in trust:
            raise CheckpointError(
                f"{folder} names the model {use!r}, which would be imported and called. If you know it, list it: "
                f"teacher.trust: [{use!r}]."
            )
    if theirs.quantization is not None:
        raise CheckpointError(f"{folder} is quantized; a teacher is a float network. Take the stage before: prune.")
    if theirs.dtype != meta.dtype or len(theirs.shape) != len(meta.shape) or theirs.shape[-1] != meta.shape[-1]:
        raise CheckpointError(
            f"{folder} takes {theirs.dtype} samples of shape {theirs.shape}, the data are {meta.dtype} of {meta.shape}."
        )
    is_ensemble = theirs.model.use == "ensemble"
    if adapts and is_ensemble:
        raise CheckpointError(f"{folder} is an ensemble, which is taken as it is; use adapt: {{use: none}}.")
    if not adapts and theirs.classes != meta.classes:
        order = " in another order" if set(theirs.classes) == set(meta.classes) else ""
        raise CheckpointError(
            f"{folder} answers {len(theirs.classes)} classes ({_few(theirs.classes)}), the data have "
            f"{len(meta.classes)} ({_few(meta.classes)}){order}. A new head learns them: adapt: {{use: head, ...}} or all."
        )
    unchanged = theirs.model_copy(update={"shape": meta.shape})
    head = find_head(built(unchanged), unchanged)
    spec = with_classes(unchanged, meta.classes, head)
    network = built(spec)
    whole = pair(network.state_dict(), state, "names")
    # equal numbers of other classes are other classes too
    pairing = whole if theirs.classes == meta.classes else _headless(whole, f"body.{head}")
    if not pairing.fits:
        raise CheckpointError(f"{folder} does not fit {in_words(spec.model)} on samples of {meta.shape}:\n{pairing}")
    network.load_state_dict(pairing.state, strict=False)
    if is_more(meta.classes, theirs.classes):
        keep_rows_(network, state, head)
    return Brought(spec, network.eval(), f"body.{head}", pairing is not whole)


def _headless(pairing: Pairing, head: str) -> Pairing:
    """A pairing whose head, fitting or not, is left fresh."""
    state = {name: tensor for name, tensor in pairing.state.items() if not name.startswith(f"{head}.")}
    return Pairing(state, *(getattr(pairing.without(head), kind) for kind in ("missing", "unexpected", "shapes")))


def built(spec: Spec) -> Network:
    """A fresh network.

    Raises:
        ComponentError: its sizes do not agree.

    """
    try:
        return models.build(spec)
    except ValueError as error:
        raise ComponentError(f"{in_words(spec.model)} cannot be built: {error}") from error


def find_head(network: Network, spec: Spec) -> str:
    """The name of the head below `body`, found by one sample, whose answer must be a row of logits.

    Raises:
        ComponentError: the network cannot take such a sample, or answers something else.

    """
    sample = torch.zeros((1, *spec.shape), dtype=models.torch_dtype(spec.dtype))
    try:
        with torch.no_grad():
            answer: Any = network.eval()(sample)
            head = head_of(network.body, network.preprocess(sample))
    except (RuntimeError, ValueError, AssertionError, LookupError, TypeError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ComponentError(
            f"{in_words(spec.model)} cannot take a sample of {models.body_shape(spec)} (channels first): {line}. "
            "Packages name the number of channels themselves (timm: in_chans). With use: weights, three values in input.mean "
            "make three channels of grey images, and input.size scales them."
        ) from error
    if not isinstance(answer, Tensor) or answer.shape != (1, len(spec.classes)):
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise ComponentError(
            f"{in_words(spec.model)} answers one sample with {found}, expected logits of shape (1, {len(spec.classes)})."
        )
    return head


def _names(model: Component) -> Iterator[str]:
    """The names of a model and of the members it is made of."""
    yield model.use
    for member in model.keywords.get("members", []) if model.use == "ensemble" else []:
        yield from _names(Spec.model_validate(member).model)


def _few(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")

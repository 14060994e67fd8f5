"""What a misfit says: which other size of an architecture a file's tensors would fit, and which settings."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component, resolve
from limbeck.models import MODELS
from limbeck.params import WeightsTeacher
from limbeck.teachers.weights import SAFETENSORS, Pairing, distance, pair

LARGEST_INT = 200
"""Up to here integers are tried when a model that would fit is looked for; a file's own sizes are tried too."""


def in_words(model: Component) -> str:
    """A component as it would stand in params.yaml."""
    keywords = ", ".join(f"{name}: {value}" for name, value in model.keywords.items())
    return f"{{use: {model.use}{', ' if keywords else ''}{keywords}}}"


def advice(
    spec: Spec,
    whole: Pairing,
    own: dict[str, Tensor],
    found: dict[str, Tensor],
    head: str,
    params: WeightsTeacher,
    file: Path,
) -> Iterator[str]:
    """What would fit, most telling first."""
    first = next(iter(found)).partition(".")[0] + "."
    if not params.prefix and all(name.startswith(first) for name in found):
        yield f"Every name begins with {first!r}: prefix: {first}"
        found = {name.removeprefix(first): tensor for name, tensor in found.items()}
        whole = pair(own, found, params.match)
    can_order = file.suffix != SAFETENSORS
    if whole.fits:
        return
    if whole.without(head).fits:
        yield "Only the head differs, it answers other classes: adapt: {use: head, ...} or {use: all, ...} trains a new one."
        return
    if params.match == "names" and can_order and (ordered := pair(own, found, "order")).without(head).fits:
        yield "The names differ, the shapes agree one by one: match: order"
        if not ordered.fits:
            yield "and its head answers other classes: adapt: {use: head, ...} or {use: all, ...} trains a new one."
        return
    model, left = nearest_model(spec, found)
    if left == 0:
        yield f"These shapes are those of {in_words(model)}."
        _, body = _on_paper(model, spec, found)
        if not pair(body, found, params.match).fits and can_order and pair(body, found, "order").fits:
            yield "Its names are others, in the same order: match: order"
    elif left < len(found) / 2:
        yield f"Nearest: {in_words(model)}, with {left} tensors of shapes of their own."
    else:
        yield f"No size of {params.model.use} comes near these shapes; is it the right architecture?"


def nearest_model(spec: Spec, found: dict[str, Tensor]) -> tuple[Component, int]:
    """The sizes of an architecture whose shapes come nearest to a file's, and how many tensors still differ.

    One keyword after the other is tried over integers (or the words that its annotation allows), twice around;
    networks are built without memory, with as many inputs and classes as the file has.
    """
    best = spec.model
    left, _ = _on_paper(best, spec, found)
    sizes = {size for tensor in found.values() for size in tensor.shape}
    arguments = inspect.signature(resolve(best, MODELS, "model")).parameters
    for _ in range(2):
        for keyword, argument in arguments.items():
            if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
                continue
            for value in _candidates(argument, best.keywords.get(keyword, argument.default), sizes):
                tried = Component.model_validate({"use": best.use, **best.keywords, keyword: value})
                differing, _ = _on_paper(tried, spec, found)
                if differing < left:
                    best, left = tried, differing
            if left == 0:
                return best, 0
    return best, left


def _candidates(argument: inspect.Parameter, current: Any, sizes: set[int]) -> list[Any]:
    if get_origin(argument.annotation) is Literal:
        return list(get_args(argument.annotation))
    if type(current) is int:
        return sorted({*range(1, LARGEST_INT + 1), *sizes})
    return []


def _on_paper(model: Component, spec: Spec, found: dict[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
    """How far a model's shapes are from a file's, and its state dict, without memory; infinitely far if it is none."""
    inputs = next((tensor.shape[1] for tensor in found.values() if tensor.dim() == 4), models.body_shape(spec)[0])
    outputs = [tensor.shape[0] for tensor in found.values() if tensor.dim()][-1]
    try:
        with torch.device("meta"):
            body = models.builder(model)((inputs, *models.body_shape(spec)[1:]), outputs).state_dict()
    except Exception:  # a size that the architecture refuses, each in a way of its own
        return len(found) + 10**9, {}
    return distance(body, found), body

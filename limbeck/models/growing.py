"""Classes that are added to a network: its head gets new rows behind the old ones, which stay to the bit.

Legend: K classes, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck.checkpoint import Spec
from limbeck.models import Network


def is_more(classes: tuple[str, ...], known: tuple[str, ...]) -> bool:
    """Whether `classes` are the `known` ones, in their order, and more behind them."""
    return len(classes) > len(known) and classes[: len(known)] == known


def with_classes(spec: Spec, classes: tuple[str, ...], head: str) -> Spec:
    """The spec of the same network with a head (a submodule below `body`) for `classes`; no weights belong to it yet."""
    cuts = dict(spec.cuts)
    if head in cuts:
        cuts[head] = cuts[head].model_copy(update={"outputs": len(classes)})
    return spec.model_copy(update={"classes": classes, "cuts": cuts, "weights_sha256": ""})


def keep_rows_(network: Network, state: Mapping[str, Tensor], head: str) -> int:
    """Copy the head's rows [K, D] and biases [K] of a stored state over the first ones of a wider head, in place.

    The rows behind them stay as they were drawn. How many were copied.
    """
    grown = network.body.get_submodule(head)
    rows = 0
    with torch.no_grad():
        for name, parameter in grown.named_parameters():
            stored = state[f"body.{head}.{name}"]
            rows = len(stored)
            parameter[:rows].copy_(stored)
    return rows

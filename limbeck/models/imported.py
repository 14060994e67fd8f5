"""Architectures of other packages: `{use: "timm.models.resnet:resnet18"}` is called with `num_classes` and its keywords.

A builder of our own takes `(shape, num_classes)` by position; timm's, torchvision's and most others know neither
name of ours and take `num_classes` by keyword. What they are told beside it stands in params.yaml.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from limbeck.components import Component, nearest
from limbeck.errors import ComponentError

FETCHING = ("pretrained", "weights", "checkpoint_path", "pretrained_cfg")
"""Keywords by which packages download or read weights while they build."""


def is_own(function: Callable[..., Any]) -> bool:
    """Whether a callable is a builder `(shape, num_classes, *, ...)`: two positions that must be filled."""
    positions = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = inspect.signature(function).parameters.values()
    return sum(a.kind in positions and a.default is inspect.Parameter.empty for a in arguments) == 2


def builder_of(function: Callable[..., Any], model: Component) -> Callable[[tuple[int, ...], int], nn.Module]:
    """Give another package's callable the face of a builder.

    Raises:
        ComponentError: it cannot be told the number of classes, rejects or lacks a keyword, or would fetch weights by itself.

    """
    arguments = inspect.signature(function).parameters
    takes_any = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values())
    if "num_classes" not in arguments and not takes_any:
        raise ComponentError(
            f"model {model.use!r} takes no `num_classes` (it takes {', '.join(arguments) or 'nothing'}); "
            "wrap it in custom/: def my_model(shape, num_classes, *, ...) -> nn.Module."
        )
    for keyword, value in model.keywords.items():
        if keyword in FETCHING and value:
            raise ComponentError(
                f"model {model.use!r} with `{keyword}: {value}` would fetch weights each time it is built; save them once "
                "(safetensors.torch.save_file(model.state_dict(), FILE)) and name the file: `teacher: {use: weights, file: FILE, ...}`."
            )
        if keyword not in arguments and not takes_any:
            raise ComponentError(f"model {model.use!r} has no keyword {keyword!r}; {nearest(keyword, list(arguments))}")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = {"num_classes", *model.keywords}
    missing = [
        name for name, argument in arguments.items()
        if argument.default is inspect.Parameter.empty and argument.kind not in variadic and name not in given
    ]  # fmt: skip
    if missing:
        raise ComponentError(f"model {model.use!r} needs {', '.join(missing)}; add it beside `use`.")

    def build(shape: tuple[int, ...], num_classes: int) -> nn.Module:
        try:
            body = function(num_classes=num_classes, **model.keywords)
        except TypeError as error:  # what `**kwargs` let through
            raise ComponentError(f"model {model.use!r} cannot be built: {error}") from error
        if not isinstance(body, nn.Module):
            raise ComponentError(f"model {model.use!r} gave a {type(body).__name__}, expected an nn.Module")
        return body

    return build

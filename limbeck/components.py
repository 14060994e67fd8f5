"""Components are data: `{use: NAME, keyword: value}` in params.yaml names a callable and its keywords.

NAME is an entry of a table (each room keeps its own at the foot of its file) or an import path
`package.module:callable`. Keywords are checked against the callable's own signature before any work.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from limbeck.errors import ComponentError

Table: TypeAlias = Mapping[str, Callable[..., Any]]

NONE = "none"


class Component(BaseModel):
    """A named callable with its keywords, as it stands in params.yaml."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords beside `use`."""
        return dict(self.model_extra or {})

    @property
    def is_none(self) -> bool:
        """Whether the technique was chosen away by `{use: none}`."""
        return self.use == NONE


def nearest(word: str, words: list[str]) -> str:
    """A hint naming the closest of `words`, or listing all of them when none is close."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(words))}."


def resolve(component: Component, table: Table, kind: str) -> Callable[..., Any]:
    """Find the callable a component names.

    Raises:
        ComponentError: the name is in no table, or its import path leads nowhere.

    """
    name = component.use
    if name in table:
        return table[name]
    if ":" not in name:
        raise ComponentError(
            f"no {kind} {name!r}; {nearest(name, list(table))} An own one is 'custom.my_file:my_name'."
        )
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ComponentError(
            f"{kind} {name!r}: cannot import {module_name!r} ({error}). Expected 'package.module:callable'."
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ComponentError(
            f"{kind} {name!r}: {module_name} has no callable {attribute!r}; {nearest(attribute, names)}"
        )
    return found  # type: ignore[no-any-return]


def check(component: Component, table: Table, kind: str) -> Callable[..., Any]:
    """Resolve a component and hold its keywords against the callable's keyword-only arguments.

    Raises:
        ComponentError: a keyword is unknown, or one without a default is missing.

    """
    function = resolve(component, table, kind)
    arguments = {
        name: argument
        for name, argument in inspect.signature(function).parameters.items()
        if argument.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for keyword in component.keywords:
        if keyword not in arguments:
            hint = nearest(keyword, list(arguments)) if arguments else "it takes no keywords."
            raise ComponentError(f"{kind} {component.use!r} has no keyword {keyword!r}; {hint}")
    missing = [
        name
        for name, argument in arguments.items()
        if argument.default is inspect.Parameter.empty and name not in component.keywords
    ]
    if missing:
        raise ComponentError(f"{kind} {component.use!r} needs {', '.join(missing)}; add it beside `use`.")
    return function


def bind(component: Component, table: Table, kind: str) -> Callable[..., Any]:
    """The component's callable with its keywords filled in, waiting for its positional arguments."""
    return partial(check(component, table, kind), **component.keywords)

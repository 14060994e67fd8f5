"""Components are data: `{use: NAME, keyword: value}` in params.yaml names a callable and its keywords.

NAME is an entry of a table (each room keeps its own at the foot of its file) or an import path
`package.module:callable`. Keywords are checked against the callable's own signature before any work: their
names, and their values against the annotations, in which pydantic's `Field(ge=0, le=1)` states a range.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from limbeck.errors import ComponentError

Table: TypeAlias = Mapping[str, Callable[..., Any]]

NONE = "none"

OWN = {
    "data source": "custom.sources",
    "model": "custom.models",
    "augmentation": "custom.augmentations",
    "loss": "custom.losses",
    "optimizer": "custom.optimizers",
    "importance": "custom.importances",
    "judge of blocks": "custom.importances",
    "quantization": "custom.quantizations",
    "observer": "custom.quantizations",
    "device": "custom.devices",
    "witness": "custom.devices",
    "metric": "custom.metrics",
}
"""Where a user's own components live, by kind: each stage depends on the folders whose kinds it takes."""


class Component(BaseModel):
    """A named callable with its keywords, as it stands in params.yaml."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords beside `use`."""
        return dict(self.model_extra or {})

    @property
    def parts(self) -> list["Component"]:
        """Components among its keywords, of the same kind where `Among` says no other, alone or in lists, such as the steps of a chain."""
        return [part for value in self.keywords.values() for part in _parts_of(value)]


@dataclass(frozen=True)
class Among:
    """Marks a keyword whose value is a component of another kind: `tokenizer: Annotated[Component, Among(TOKENIZERS, "tokenizer")]`."""

    table: "Table"
    kind: str

    @classmethod
    def of(cls, annotation: Any) -> "Among | None":
        """The mark of an annotation."""
        return next((mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, cls)), None)


def _parts_of(value: Any) -> list[Component]:
    """The components in a keyword's value: it, or some of a list."""
    values = value if isinstance(value, list) else [value]
    return [Component.model_validate(part) for part in values if isinstance(part, Mapping) and "use" in part]


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
            f"no {kind} {name!r}; {nearest(name, list(table))} "
            f"An own one is '{OWN.get(kind, 'package')}.my_file:my_name'."
        )
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
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
    """Resolve a component and hold its keywords, and those of its parts, against the callables' keyword-only arguments.

    Raises:
        ComponentError: a keyword is unknown, one without a default is missing, or a value is none that its
            annotation allows.

    """
    function = resolve(component, table, kind)
    arguments = {
        name: argument
        for name, argument in _signature(function).parameters.items()
        if argument.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for keyword in component.keywords:
        if keyword not in arguments:
            fields = set(type(component).model_fields) - {"use"}  # keys of its section that are no keywords
            known = [*arguments, *sorted(fields)]
            hint = nearest(keyword, known) if known else "it takes no keywords."
            raise ComponentError(f"{kind} {component.use!r} has no keyword {keyword!r}; {hint}")
    missing = [
        name
        for name, argument in arguments.items()
        if argument.default is inspect.Parameter.empty and name not in component.keywords
    ]
    if missing:
        raise ComponentError(f"{kind} {component.use!r} needs {', '.join(missing)}; add it beside `use`.")
    for keyword, value in component.keywords.items():
        try:
            _adapter(arguments[keyword].annotation).validate_python(value)
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ComponentError(f"{kind} {component.use!r}: {keyword} is {value!r}; {said}.") from None
    for keyword, value in component.keywords.items():
        named = Among.of(arguments[keyword].annotation) or Among(table, kind)
        for part in _parts_of(value):
            check(part, named.table, named.kind)
    return function


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # names that are imported for type checkers only
        return inspect.signature(function)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    unknown = annotation is inspect.Parameter.empty or isinstance(annotation, str)
    try:
        return TypeAdapter(Any if unknown else annotation)
    except PydanticSchemaGenerationError:  # a type of another library: only the callable itself can judge
        return TypeAdapter(Any)


def unwatched(component: Component, kind: str) -> str | None:
    """Why DVC would not notice a change of this component's code; None when it would."""
    module = component.use.partition(":")[0]
    own = OWN.get(kind)
    if ":" not in component.use or module.startswith("limbeck.") or (own and module.startswith(f"{own}.")):
        return next(filter(None, (unwatched(part, kind) for part in component.parts)), None)
    place = f"; in {own.replace('.', '/')}/ it does" if own else ""
    return f"{kind} {component.use!r}: DVC does not watch that code, so a change of it runs nothing again{place}."


def bind(component: Component, table: Table, kind: str) -> Callable[..., Any]:
    """The component's callable with its keywords filled in, waiting for its positional arguments."""
    return partial(check(component, table, kind), **component.keywords)

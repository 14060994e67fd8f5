"""A page of docs/ as a test reads it: its blocks of code, and values with a page's sections in their places."""

import re
from typing import Any, NamedTuple

from tests.conftest import ROOT

_BLOCK = re.compile(r"^```(\w+)( example)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """Fenced code of a page; an `example` is shown, not run."""

    kind: str
    is_example: bool
    text: str


def text_of(page: str) -> str:
    """The page docs/PAGE.md."""
    return (ROOT / "docs" / f"{page}.md").read_text()


def blocks_of(page: str) -> list[Block]:
    """Its blocks, in the order of the page."""
    return [Block(kind, bool(example), text) for kind, example, text in _BLOCK.findall(text_of(page))]


def into(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with a page's section in its place, as a reader would edit them; what has a `use` is replaced as a whole."""
    return values | {
        key: into(values[key], new) if isinstance(new, dict) and "use" not in new and key in values else new
        for key, new in changes.items()
    }

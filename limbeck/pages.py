"""A page for people, as Markdown and as HTML that stands alone: sentences, a table, notes, pictures, what to do next."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.atomic import replace


@dataclass(frozen=True)
class Row:
    """A line of a page's table; `stands_out` where the eye is to go."""

    cells: tuple[str, ...]
    stands_out: bool = False


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        pictures: PNGs under their headings; in HTML alone.
        samples: preformatted text under `samples_heading`.
        steps: commands that make sense now.

    """

    title: str
    sentences: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    samples_heading: str = ""
    samples: str = ""
    steps: Sequence[str] = ()
    footer: str = ""

    def markdown(self) -> str:
        """Without the pictures."""
        header = "| " + " | ".join(self.columns) + " |\n|" + "---|" * len(self.columns)
        body = "\n".join(
            "| " + " | ".join(f"**{c}**" if row.stands_out and c else c for c in row.cells) + " |" for row in self.rows
        )
        parts = [f"# {self.title}", *self.sentences]
        parts += [f"{header}\n{body}"] if self.rows else []
        parts.append("\n".join(f"- {note}" for note in self.notes))
        if self.samples:
            parts.append(f"```\n{self.samples}\n```")
        parts.append(self.footer)
        if self.steps:
            parts.append("Next:\n\n" + "\n".join(f"    {line}" for line in self.steps))
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """With the pictures in it: one file, nothing loaded from elsewhere."""
        from jinja2 import Environment, PackageLoader

        template = Environment(loader=PackageLoader("limbeck", ""), autoescape=True).get_template("page.html.jinja")
        pictures = [(heading, base64.b64encode(picture).decode()) for heading, picture in self.pictures]
        return template.render(page=self, pictures=pictures)

    def write(self, folder: Path, name: str) -> Path:
        """Write `name.md` and `name.html`; the latter's path."""
        for suffix, text in ((".md", self.markdown()), (".html", self.html())):
            with replace(folder / f"{name}{suffix}") as partial:
                partial.write_text(text, encoding="utf-8")
        return folder / f"{name}.html"

"""`python -m examples.day`: a day in minutes, its story in work/day/day.html.

    morning   digits land as ever                        nothing is done
    noon      the light glares                           the cheapest rung that passes the gate repairs it
    evening   a 9, which nobody knew, and a request      the teacher learns it, then the student, and both keep the others

The script lets data land and looks on. What is done about it, the worker of `make up` does.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from examples.day import life
from examples.day.telling import Part, page
from examples.day.world import GLARE, NEW, Digits, World, world
from flows import environment
from limbeck.data.prepared import read
from limbeck.errors import LimbeckError


def main(
    folder: Annotated[Path, typer.Option(help="Where the day is lived.")] = environment.ROOT / "work/day",
    lost_s: Annotated[float, typer.Option(min=40, help="As of `make up`.")] = environment.LOST_S,
) -> None:
    """Live a day: a quiet morning, glaring light at noon, a new class in the evening."""
    try:
        day, place = world(), folder.resolve()
        life.make(place, day.base)
        with life.services(place, lost_s=lost_s) as services:
            print("The worker makes the champion with which the day begins.", flush=True)
            services.run("compress/compress", folder=str(place))
            print(f"See {live(services, day)}")
    except LimbeckError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def live(services: life.Services, day: World) -> Path:
    """The three parts; the page of their story."""
    place = services.place
    kinds = held_out(place, day)
    before = life.accuracy(place, kinds)
    told = [
        ("morning", f"{len(day.morning)} digits landed as ever", [entry("morning", day.morning)]),
        ("noon", f"{len(day.noon)} digits landed, every pixel {GLARE} brighter", [entry("noon", day.noon)]),
        (
            "evening",
            f"{len(day.evening)} digits landed, {NEW} among them, and a request to learn it",
            [request("evening", NEW), entry("evening", day.evening)],
        ),
    ]
    parts = []
    for name, landed, entries in told:
        print(f"{name}: {landed}", flush=True)
        part = lived(services, name, landed, entries, kinds)
        print(*(f"  {line}" for line in part.noticed), sep="\n", flush=True)
        parts.append(part)
        page(parts, before, {kind: len(each) for kind, each in kinds.items()}).write(place, "day")
    return place / "day.html"


def lived(
    services: life.Services, name: str, landed: str, entries: list[Callable[[Path], None]], kinds: dict[str, Digits]
) -> Part:
    """A part of the day, from what lands to the end of the last run."""
    place, began = services.place, time.monotonic()
    looks, stories = life.looks(place), life.stories(place)
    said = services.land(*entries)
    seconds = time.monotonic() - began
    picture, story, noticed = None, None, said
    for story, folder in life.stories(place)[len(stories) :]:
        report = story.looked["report"]
        noticed = [story.asked, *(f"{moved['what']}: {moved['words']}" for moved in report["moved"])]
        picture = folder / "moved.png"
    for look in [path for path in life.looks(place) if path not in looks]:
        report = json.loads(look.read_text(encoding="utf-8"))["report"]
        noticed, picture = [report["reason"]], look.with_suffix(".png")
    drawn = picture.read_bytes() if picture and picture.is_file() else None
    return Part(name, landed, noticed, drawn, story, seconds, life.accuracy(place, kinds))


def held_out(place: Path, day: World) -> dict[str, Digits]:
    """Samples that no champion learns from: of the first one's test split as it is and in that light, and of the new class."""
    x, y = read(place / "data", "test")
    known = Digits(x[:], y[:].astype(str))
    return {"0 to 8": known, "0 to 8, glaring": known.glaring(), f"{NEW}, glaring": day.held_new}


def entry(name: str, digits: Digits) -> Callable[[Path], None]:
    """Digits that land under a name."""
    return lambda drop: digits.write(drop / f"{name}.npz")


def request(name: str, new: str) -> Callable[[Path], None]:
    """A request for a class, as a file."""

    def write(drop: Path) -> None:
        partial = drop / f"{name}.request.yaml.partial"
        partial.write_text(f'new_classes: ["{new}"]\n', encoding="utf-8")
        partial.rename(drop / f"{name}.request.yaml")

    return write


if __name__ == "__main__":
    typer.run(main)

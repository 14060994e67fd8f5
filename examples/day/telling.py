"""The story of a day as a page: what landed, what was noticed, what was tried at what cost, what shipped, how good it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from limbeck.pages import Page, Row
from limbeck.refresh.story import Story
from limbeck.refresh.telling import line

SHIPPED = ("champion", "canary")


@dataclass(frozen=True)
class Part:
    """A part of the day.

    Attributes:
        name: morning, noon, evening.
        landed: in words.
        noticed: what moved, a line each; the first one is the decision.
        picture: PNG of what moved; None where nothing did.
        story: of the refresh that followed; None where nothing was done.
        seconds: from landing to the end of the last run that it called for.
        accuracy: of the champion, after it, on each kind of held-out samples, from 0 to 1.

    """

    name: str
    landed: str
    noticed: Sequence[str]
    picture: bytes | None
    story: Story | None
    seconds: float
    accuracy: dict[str, float] = field(default_factory=dict)


def page(parts: Sequence[Part], before: dict[str, float], samples: dict[str, int]) -> Page:
    """The page of a day.

    Args:
        parts: in their order.
        before: accuracy of the champion with which the day began, by kind of samples.
        samples: how many of each kind there are.

    """
    return Page(
        title="A day",
        sentences=[_sentence(part) for part in parts],
        columns=("champion's accuracy, %", "held out", "before", *(f"after {part.name}" for part in parts)),
        rows=[
            Row((kind, f"{samples[kind]:,}", *(_percent(each, kind) for each in (before, *(p.accuracy for p in parts)))))
            for kind in before
        ],
        notes=list(_notes(parts)),
        pictures=[(f"{part.name.capitalize()}: what moved", part.picture) for part in parts if part.picture],
        footer="A scheduled worker did the work. No champion learned from held-out samples.",
    )  # fmt: skip


def _percent(accuracy: dict[str, float], kind: str) -> str:
    return f"{100 * accuracy[kind]:.1f}"


def _sentence(part: Part) -> str:
    told = f"{part.name.capitalize()}: {part.landed}. {part.noticed[0][0].upper()}{part.noticed[0][1:]}"
    if part.story is None:
        return f"{told}: nothing was done."
    story = part.story
    ended = f"the refresh {story.outcome or 'goes on'}"
    if story.picked and story.outcome in SHIPPED:
        ended = f"version {story.version}, by the rung {story.picked.rung}, is the {story.outcome}"
    return f"{told}. After {story.seconds:.0f} s of rungs {ended}; {part.seconds:.0f} s since it landed."


def _notes(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        for noticed in part.noticed[1:]:
            yield f"{part.name}: {noticed}"
        for each in part.story.tries if part.story else ():
            yield f"{part.name}: {line(each, is_over=True)}"

"""A refresh as a page: what moved, which rungs were tried at what cost, champion beside challenger, what shipped."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from limbeck.pages import Page, Row
from limbeck.refresh.story import Judged, Story, Try

COLUMNS = ("samples", "", "champion %", "challenger %", "difference [95 %]")
WORDS = {
    "champion": "is the champion now",
    "canary": "goes to a share of the fleet first",
    "refused": "was refused",
    "failed": "was not found",
    "superseded": "was not looked for any further",
}


def page(story: Story, folder: Path) -> Page:
    """The page of a story whose files lie in `folder`."""
    picked = story.picked
    shown = story.exam or (picked.verdict if picked else _last(story))
    split = "test" if story.exam else "validation"
    moved = folder / "moved.png"
    return Page(
        title=f"{story.model}: refresh {story.number}",
        sentences=[_sentence(story), *_figures(story)],
        columns=COLUMNS,
        rows=list(_rows(shown, split)) if shown else [],
        notes=list(_notes(story)),
        pictures=[("What moved", moved.read_bytes())] if moved.is_file() else [],
        footer=f"Began {story.began:%Y-%m-%d %H:%M} UTC; rungs took {story.seconds:.0f} s. "
        f"A small class is judged by its interval: refresh.yaml, gate.",
    )


def _sentence(story: Story) -> str:
    ended = f"A challenger {WORDS[story.outcome]}" if story.outcome else "It goes on"
    if story.outcome and story.picked and story.version:
        ended = f"Version {story.version}, by the rung {story.picked.rung}, {WORDS[story.outcome]}"
    return f"{story.asked}. {ended}{f': {story.why}' if story.why and story.outcome != 'champion' else ''}."


def _figures(story: Story) -> Iterator[str]:
    """What was known of the champion on the new samples."""
    feedback = story.looked["feedback"]
    yield estimated(story.looked["estimate"])
    if told := _whose(story):
        yield told
    if feedback["stale"]:
        yield f"{feedback['stale'][0].upper()}{feedback['stale'][1:]}."


def estimated(estimate: Mapping[str, Any]) -> str:
    """What agreement with the teacher says of the champion, and how far off that is where people labelled some (`LabelFree`)."""
    told = f"Without labels the champion's accuracy on the new samples is put at {_share(estimate['accuracy'])}"
    if estimate["true"] is not None:
        told += (
            f"; people labelled {estimate['num_known']:,} of them: {_share(estimate['true'])}, so that estimate is off by "
            f"{100 * estimate['error']:+.1f} points"
        )
    return f"{told}."


def _whose(story: Story) -> str:
    """Whose labels "right" means, where they are not people's alone."""
    by = {window.labelled_by for window in story.windows} - {"none"}
    if by == {"teacher"}:
        return (
            "Nobody but the teacher labelled the new samples: on them, right below means what the teacher says, and a "
            "challenger that it taught agrees with it more easily."
        )
    if by & {"teacher", "both"}:
        return "Some of the new samples were labelled by the teacher alone: on these, right below means what it says."
    return ""


def _share(estimate: dict[str, float]) -> str:
    return f"{100 * estimate['value']:.1f} % [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _last(story: Story) -> Judged | None:
    return next((each.verdict for each in reversed(story.tries) if each.verdict), None)


def _rows(judged: Judged, split: str) -> Iterator[Row]:
    num_windows = sum(row["name"].startswith("window ") for row in judged.rows)
    for row in judged.rows:
        difference = row["difference"]
        is_same = num_windows == 1 and row["name"].startswith("window ")  # as `new`
        if row["samples"] and not is_same:
            yield Row(
                (
                    f"{split}, {row['name']}",
                    f"{row['samples']:,}",
                    f"{100 * row['champion']:.1f}",
                    f"{100 * row['challenger']:.1f}",
                    f"{100 * difference['value']:+.1f} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]",
                ),
                stands_out=row["name"] in ("old", "new"),
            )


def _notes(story: Story) -> Iterator[str]:
    for thing in story.looked["report"]["moved"]:
        yield f"{thing['what']}: {thing['words']}"
    for window in story.windows:
        yield f"window {window.folder.name}, labelled by {window.labelled_by}"
    for each in story.tries:
        yield line(each, is_over=story.outcome is not None)


def line(each: Try, *, is_over: bool = False) -> str:
    """A rung in a line; `is_over`: its refresh has ended, so that what still waits never ran."""
    changes = "".join(f"; {change}" for change in each.changes)
    if each.state == "waiting":
        if is_over:
            return f"{each.rung}: not tried"
        return f"{each.rung}: about {each.expected_s:.0f} s ({each.known_from}){changes}"
    words: Any = each.why if each.verdict is None else each.verdict.words
    took = f" after {each.seconds:.0f} s" if each.seconds >= 1 else ""
    return f"{each.rung}: {each.state}{took}: {words}{changes}"

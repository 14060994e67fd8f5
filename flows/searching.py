"""The flow `search`: what `python -m flows.search` does, asked for in Prefect and shown there (prefect.yaml)."""

import re
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import environment, space, workspace
from flows.search import Sampler, Search
from limbeck.errors import LimbeckError


@flow(name="search", persist_result=False)
def search(
    target: str,
    recipe: str | None = None,
    folder: Path | None = None,
    knobs: Path = Path("searches/student.yaml"),
    trials: int = 20,
    minutes: float | None = None,
    sampler: Sampler = "tpe",
    seed: int = 0,
) -> State[Any]:
    """Try values of a target's knobs; a search that was killed goes on, one that is done adds trials.

    Args:
        target: whose knobs are tried.
        recipe: start from recipes/NAME.yaml.
        folder: start from this workspace instead of the project.
        knobs: what may change, below the project unless absolute.
        trials: stop when so many are done, earlier runs' included.
        minutes: begin no trial after so many.
        sampler: tpe learns from earlier trials; random does not.
        seed: of the sampler.

    """
    environment.settle()
    log = get_run_logger()
    try:
        found = Search(
            workspace.locate(recipe, folder), target, space.read(environment.ROOT / knobs), sampler, seed, say=log.info
        )
        found.run(trials, minutes, after=lambda: _show(found))
        front = found.front()
    except LimbeckError as error:
        return Failed(message=str(error), data=error)
    _show(found)
    return Completed(message=f"{len(front)} of {len(found.ended())} trials are the front; {_place(found)}/front.json")


def rows(found: Search) -> list[dict[str, Any]]:
    """Every trial that came through, the front first, the smallest of it first."""
    ordered = sorted(found.rows(), key=lambda row: (not row["on_front"], row["bytes"]))
    return [
        {
            "trial": row["trial"],
            "front": "yes" if row["on_front"] else "",
            **{place: f"{value:.3g}" if isinstance(value, float) else value for place, value in row["values"].items()},
            "validation %": f"{100 * row['validation']:.1f}",
            "bytes": f"{row['bytes']:,.0f}",
            "p50 ms": f"{row['p50_ms']:.3f}",
        }
        for row in ordered
    ]


def markdown(found: Search) -> str:
    """The front, and what to do with it."""
    table = [row for row in rows(found) if row["front"]]
    names = [name for name in table[0] if name != "front"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in table]
    place = _place(found)
    return "\n".join(
        [
            f"The front of {len(found.ended())} trials, smallest first; short trainings, on validation.",
            "",
            *lines,
            "",
            f"[{place}/front.png](file://{found.folder / 'front.png'})",
            "",
            f"Take one over: its values stand in `{place}/NNN/params.yaml`, its files in `{place}/NNN/export/{found.target}`.",
        ]
    )


def _place(found: Search) -> Path:
    return found.folder.relative_to(environment.ROOT)


def _show(found: Search) -> None:
    """Publish trials and front as artifacts; the search does not depend on that."""
    if not found.rows():
        return
    key = re.sub(r"[^a-z0-9]+", "-", f"search-{found.folder.name}".lower()).strip("-")
    try:
        create_table_artifact(rows(found), key=f"{key}-trials", description=f"trials of {found.folder.name}")
        create_markdown_artifact(markdown(found), key=f"{key}-front", description=f"front of {found.folder.name}")
    except Exception:
        get_run_logger().exception("the search was not published as an artifact")

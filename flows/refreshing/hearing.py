"""What devices tell of their use is said and kept, and changes nothing: no refresh begins, trains or fails for it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flows.refreshing.shipping import Say
from limbeck.atomic import replace, write_json
from limbeck.publishing.places import Place
from limbeck.refresh.rules import Rules

if TYPE_CHECKING:
    from limbeck.refresh.hearing import Heard


def listen(
    place: Place | None, folder: Path, data: Path, file: Path, rules: Rules, *, model: str, version: str, say: Say, dry: bool
) -> None:  # fmt: skip
    """Hold what devices tell of a champion against what it was validated on.

    Args:
        place: where they tell it; None: nowhere.
        folder: what was heard is kept here, where something else moved than was heard last.
        data: what the champion was made of.
        file: of it that ships.
        rules: see `limbeck.refresh.hearing`.
        model: name of the registered model.
        version: of the champion.
        say: told what moved, each time, or why nobody knows.
        dry: keep nothing.

    """
    if place is None:
        return
    from limbeck.publishing.reports import last_days
    from limbeck.refresh.hearing import hear

    now = datetime.now(UTC)
    try:
        heard = hear(last_days(place, model, int(version), now=now.timestamp()), data, file, rules, now=now)
    except Exception as error:  # a refresh depends on none of it
        say(f"nobody knows what devices tell: {error}")
        return
    if heard is None:
        return
    for line in heard.lines(version):
        say(line)
    if not dry:
        _keep(folder, heard, version, now)


def _keep(folder: Path, heard: "Heard", version: str, now: datetime) -> None:
    """A file with its picture, also where a world that had moved is as before; a champion begins with one that did not move."""
    path = max(folder.glob("*.json"), default=None)
    last = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    if heard.moved == (last["moved"] if last.get("version") == version else []):
        return
    at = folder / now.strftime("%Y%m%dT%H%M%SZ")
    if (picture := heard.picture()) is not None:
        with replace(at.with_suffix(".png")) as partial:
            partial.write_bytes(picture)
    told = {"version": version, "devices": heard.num_devices, "answers": heard.num_answers, "moved": heard.moved}
    write_json(at.with_suffix(".json"), {**told, "report": heard.report.to_json()})

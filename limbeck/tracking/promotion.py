"""The champion: moved when a challenger is not worse on the same test split, recorded in the ledger."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck import ledger
from limbeck.edge import manifest as manifest_file
from limbeck.errors import TrackingError
from limbeck.evaluation import Scores, paired_difference
from limbeck.params import MeasureParams
from limbeck.tracking.registry import CHAMPION, LATER, PREVIOUS, Version, fetch_file, fetch_model, version_at
from limbeck.tracking.server import answers, asking, failures, forget, require


@dataclass(frozen=True)
class Promotion:
    """Whether the champion moved, and why or why not."""

    moved: bool
    why: str


def promote(
    version: Version,
    file: Path,
    manifest: Mapping[str, Any],
    *,
    scores_of: Callable[[Path], Scores],
    measure: MeasureParams,
    margin: float,
    uri: str,
    ledger_file: Path,
) -> Promotion:
    """Make a version the champion when it is not worse than the present one by more than a margin.

    Both files answer the same test split, now and here. The old champion becomes `previous`; the ledger records
    the move. A move that was cut off before the ledger had it is recorded by the next call.

    Args:
        version: the challenger.
        file: its ONNX file.
        manifest: its manifest; a champion with other classes or another input, and one whose files are lost or
            damaged, cannot be compared and stays.
        scores_of: an ONNX file's scores per test sample [N].
        measure: resamples and seed of the interval that the ledger shows.
        margin: by how much the challenger's mean score may be lower.
        uri: the tracking server.
        ledger_file: see `limbeck.ledger`.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    require(uri, LATER)
    model, number = version.model, version.number
    with asking(uri) as client:
        champion = version_at(client, model, CHAMPION)
        before = None if champion is None else str(champion.version)
        if before == number:
            _mend_ledger(client, model, number, ledger_file)
            return Promotion(False, f"version {number} is the champion")
        if champion is None:
            why = "the first champion"
        else:
            may_move, why = _compare(client, uri, champion, number, file, manifest, scores_of, measure, margin)
            if not may_move:
                return Promotion(False, why)
        _move(client, model, before, number, why, ledger_file)
        return Promotion(True, why)


def appoint(model: str, number: str, why: str, *, uri: str, ledger_file: Path) -> None:
    """Make a version the champion that has proved itself elsewhere; the old one becomes `previous`. Twice is once.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    require(uri, LATER)
    with asking(uri) as client:
        champion = version_at(client, model, CHAMPION)
        before = None if champion is None else str(champion.version)
        if before == number:
            _mend_ledger(client, model, number, ledger_file)
            return
        _move(client, model, before, number, why, ledger_file)


def _move(client: Any, model: str, before: str | None, number: str, why: str, ledger_file: Path) -> None:
    """Move the alias, then write it down: `_mend_ledger` sees to a kill between the two."""
    if before is not None:
        client.set_registered_model_alias(model, PREVIOUS, before)
    client.set_registered_model_alias(model, CHAMPION, number)
    _record(ledger_file, model, before, number, why)


def _compare(
    client: Any,
    uri: str,
    champion: Any,
    number: str,
    file: Path,
    manifest: Mapping[str, Any],
    scores_of: Callable[[Path], Scores],
    measure: MeasureParams,
    margin: float,
) -> tuple[bool, str]:
    by_hand = "move the alias `champion` by hand if the new one is meant to replace it"
    with tempfile.TemporaryDirectory() as folder:
        try:
            theirs = json.loads(
                fetch_file(client, uri, champion, manifest_file.NAME, Path(folder)).read_text(encoding="utf-8")
            )
            old_file = fetch_model(client, uri, champion, Path(folder))
        except (*failures(), TrackingError, KeyError, OSError, ValueError) as error:  # type: ignore[misc]
            forget(uri)
            if not answers(uri):
                raise
            return False, f"champion {champion.version} cannot be compared ({error!r}); {by_hand}"
        for key in ("classes", "input"):
            if theirs[key] != manifest[key]:
                return False, (
                    f"champion {champion.version} has other {key} than version {number}, so the two cannot be "
                    f"compared; {by_hand}"
                )
        new, old = scores_of(file), scores_of(old_file)
    difference = paired_difference(new, old, measure.bootstrap, measure.seed)
    figures = (
        f"version {number} scores {new.mean():.4f} on this test split, champion {champion.version} {old.mean():.4f} "
        f"({difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}])"
    )
    if difference["value"] >= -margin - 1e-12:  # exactly the margin is within it
        return True, f"{figures}; it may be {margin:g} lower"
    return False, f"{figures}; it may be {margin:g} lower, so the champion stays"


def _record(file: Path, model: str, before: str | None, number: str, why: str) -> None:
    ledger.append(file, ledger.now(model=model, alias=CHAMPION, previous=before, version=number, why=why))


def _mend_ledger(client: Any, model: str, number: str, file: Path) -> None:
    last = next(
        (entry for entry in reversed(ledger.read(file)) if (entry.model, entry.alias) == (model, CHAMPION)), None
    )
    if last is None or last.version != number:
        previous = version_at(client, model, PREVIOUS)
        why = "found in place: moved elsewhere, or by a run that was cut off before it wrote here"
        _record(file, model, None if previous is None else str(previous.version), number, why)

"""Stories as a refresh writes them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.refresh.story import Judged, Source, Story, Try

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SOME = {"value": 0.9, "low": 0.8, "high": 0.95}
LOOKED: dict[str, Any] = {
    "report": {"moved": [{"what": "input statistics", "words": "mean 0 (ks 0.41)"}]},
    "estimate": {"accuracy": SOME, "true": SOME, "error": 0.021, "num_known": 120},
    "feedback": {"stale": "", "fell": 0.25},
}


def judged(passed: bool, gain: float = 0.25) -> Judged:
    row = {
        "name": "new",
        "samples": 120,
        "champion": 0.5,
        "challenger": 0.5 + gain,
        "difference": {"value": gain, "low": gain - 0.05, "high": gain + 0.05},
    }
    return Judged(
        passed=passed, words="passes on validation" if passed else "is refused on validation", clauses=[], rows=[row]
    )


def tried(rung: Any, state: Any, gain: float = 0.25, **more: Any) -> Try:
    seconds = 0.0 if state in ("waiting", "skipped") else 12.0
    verdict = judged(state == "passed", gain) if state in ("passed", "refused") else None
    known = {"work": {"label": 1, "teacher": 0, "student": 2}, "expected_s": 60.0, "known_from": "1 run of this rung"}
    return Try(
        rung=rung, state=state, seconds=seconds, verdict=verdict, ended=NOW if seconds else None, **{**known, **more}
    )


def story(*tries: Try, **more: Any) -> Story:
    return Story(
        **{
            "model": "tiny-phone", "target": "phone", "number": 1, "began": NOW, "champion": "1", "workspace": Path("base"),
            "windows": [Source(folder=Path("windows/noon"), digest="d", labelled_by="people")],
            "asked": "input statistics moved", "looked": LOOKED, "tries": list(tries), **more,
        }
    )  # fmt: skip

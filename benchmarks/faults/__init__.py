"""Faults to survive: real agents on loopback, and everything that can go wrong between them and their next version.

`python -m benchmarks faults` plays 20 seeds of every kind, about an hour on two cores; `--quick` one of each, some minutes. Cut
off, the same command goes on from its journal, as long as the code is the same.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.places import ROOT, environment

NUM_SEEDS, QUICK_SEEDS = 20, 1
LIMITS = {"survived": 1.0}
JOURNALS = ROOT / ".limbeck" / "drill"


def mounting() -> list[str]:
    """Words before a command that let it mount file systems which nobody else sees; none where that is forbidden."""
    names = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    words = ["unshare", *names]
    probe = [*words, "mount", "-t", "tmpfs", "drill", "/mnt"]
    if shutil.which("unshare") and not subprocess.run(probe, capture_output=True, check=False).returncode:
        return words
    return []


def play(journal: Path, num_seeds: int, place: Path, patience: float = 1.0) -> None:
    """Run the drill to its end.

    Raises:
        SystemExit: it could not be run.

    """
    command = [*mounting(), sys.executable, "-m", "benchmarks.faults.drill"]
    done = subprocess.run(
        [*command, "--seeds", str(num_seeds), "--journal", str(journal), "--patience", str(patience)],
        cwd=ROOT, env={**environment(place), "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the drill ended with exit code {done.returncode}; the same command goes on from {journal}")


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Play what the journal of this code lacks, and sum it up."""
    quick = params != ROOT / "params.yaml"
    digest = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    journal = JOURNALS / f"{digest or 'none'}{'-quick' if quick else ''}.jsonl"
    began = time.monotonic()
    play(journal, QUICK_SEEDS if quick else NUM_SEEDS, place)
    found = summary(read(journal))
    journal.unlink()
    return {"seconds": {"the drill": time.monotonic() - began}, **found, "limits": LIMITS}


def read(journal: Path) -> list[dict[str, Any]]:
    """The faults played so far; a line that a kill cut short is played again."""
    lines = journal.read_text().splitlines() if journal.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of every kind."""
    from benchmarks.faults.kinds import KINDS  # brings what tests and servers need

    kinds: dict[str, Any] = {}
    for name in KINDS:
        own = [line for line in lines if line["kind"] == name]
        if own:
            said = Counter(shortened(line["said"]) for line in own)
            kinds[name] = {
                "faults": len(own),
                "survived": sum(not line["wrong"] for line in own),
                "said": dict(said.most_common()),
                "longest_gap_s": max(line.get("longest_gap_s", 0.0) for line in own),
            }
    survived = sum(not line["wrong"] for line in lines)
    return {
        "ratios": {"survived": survived / max(1, len(lines))},
        "faults": len(lines),
        "answers": sum(line.get("answers", 0) for line in lines),
        "longest_gap_s": max((line.get("longest_gap_s", 0.0) for line in lines), default=0.0),
        "kinds": kinds,
        "not_possible_here": [name for name in KINDS if name not in kinds],
        "not_survived": [line for line in lines if line["wrong"]],
    }


def shortened(said: str) -> str:
    """A message without what differs from one seed to the next: addresses, keys, paths, figures."""
    rules = (
        (r"^\(once the fault was over\) ", ""),
        (r"https?://\S*/|\b\d+/tuf/", ""),
        (r"\S*/artifacts/bundle/|(?<!\w)/\S*/", ""),
        (r"\bdrill-[ab]\b", "MODEL"),
        (r"\b\d+-[0-9a-f]{16}\b", "KEY"),
        (r"\b[0-9a-f]{16,}\b", "DIGEST"),
        (r"\d{4}-\d\d-\d\dT[\d:.+]*\d", "TIME"),
        (r"(?<![\w.])(?<!answers )-?\d+([,.]\d+)*(e[+-]\d+)?(?!\w)", "N"),
        (r"\b\d+(?=\.(root|snapshot|targets)\.json)", "N"),
    )
    for pattern, replacement in rules:
        said = re.sub(pattern, replacement, said)
    return said


def table(result: dict[str, Any]) -> str:
    """The figures as docs/device.md shows them."""
    lines = ["| fault | faults | survived | what the update said most often |", "|---|---|---|---|"]
    for name, found in result["kinds"].items():
        said = next(iter(found["said"]), "").replace("|", "/")
        lines.append(f"| {name} | {found['faults']} | {found['survived']} | {said} |")
    return "\n".join(lines)

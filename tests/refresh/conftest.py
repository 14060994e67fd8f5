"""A champion that was never trained, and rules."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.params import Params
from limbeck.refresh.gate import GateRules
from limbeck.refresh.rungs import Champion, Feedback, LadderRules, Situation, Stored


def values_in(docstring: str | None, key: str) -> Any:
    """The YAML that a docstring shows below a key."""
    assert docstring is not None
    lines = docstring.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
    indent = len(lines[start]) - len(lines[start].lstrip())
    shown = [lines[start]]
    for line in lines[start + 1 :]:
        if len(line) - len(line.lstrip()) <= indent:
            break
        shown.append(line)
    return yaml.safe_load("\n".join(line[indent:] for line in shown))[key]


@pytest.fixture(scope="session")
def ladder_rules() -> LadderRules:
    return LadderRules.model_validate(values_in(LadderRules.__doc__, "ladder"))


@pytest.fixture(scope="session")
def gate_rules() -> GateRules:
    return GateRules.model_validate(values_in(GateRules.__doc__, "gate"))


CHAMPION = Champion(
    student=Stored(Path("/champion/models/sensor/prune"), "a" * 64),
    unpruned=Stored(Path("/champion/models/sensor/distill"), "b" * 64),
    teacher=Stored(Path("/champion/models/teacher"), "c" * 64),
    data=Path("/champion/data"),
    data_digest="d" * 64,
)


@pytest.fixture(scope="session")
def situation(tiny: Params, ladder_rules: LadderRules) -> Situation:
    """The sensor of tests/tiny.yaml after a day on which nothing is known but that two windows came."""
    base = tiny.model_dump(mode="json")
    return Situation(base, "sensor", CHAMPION, (Path("/w/1"), Path("/w/2")), ladder_rules, Feedback())

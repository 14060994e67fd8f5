"""refresh.yaml: every value that a refresh goes by. Types and ranges; nothing here has a default."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from limbeck.drift.rules import DriftRules
from limbeck.params import Section, Share, section
from limbeck.refresh.gate import GateRules
from limbeck.refresh.requests import RequestRules
from limbeck.refresh.rungs import LadderRules, Rates
from limbeck.windows.rules import WindowRules


class ShipRules(Section):
    """What becomes of a challenger that passed.

    Attributes:
        approval: ask: a person has to say yes, in Prefect's pages or on the terminal.
        approval_hours: for so long; then the challenger is refused.
        canary: share of the fleet that takes it first (`flows/rollout.py` widens it), which needs keys and a server; null:
            it is the champion at once, and nothing is signed.

    """

    approval: Literal["none", "ask"]
    approval_hours: PositiveFloat
    canary: Share | None


class Rules(Section):
    """The file.

    Attributes:
        drop: the folder where new data land, below the workspace.
        minutes_per_day: of a model's rungs; one that would not end within them waits for tomorrow.
        batch_size: of forward passes that look at windows.
        threads: of this process, while it looks and judges.
        seed: of subsamples.

    """

    drop: str
    minutes_per_day: PositiveFloat
    batch_size: PositiveInt
    threads: PositiveInt
    seed: NonNegativeInt
    windows: WindowRules
    drift: DriftRules
    ladder: LadderRules
    rates: Rates
    gate: GateRules
    requests: RequestRules
    ship: ShipRules


FILE = "refresh.yaml"


def find(workspace: Path, project: Path, named: Path | None = None) -> Path:
    """The file that counts: the one that is named (below the project), the workspace's own, or the project's."""
    if named is not None:
        return project / named
    own = workspace / FILE
    return own if own.is_file() else project / FILE


def load(path: Path) -> Rules:
    """The rules of a file.

    Raises:
        ParamsError: it is missing, or a value is not right; all of them are named.

    """
    return section(path, Rules, missing="copy refresh.yaml of the project, or name one with --rules")

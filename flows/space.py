"""What a search may change: places below `targets.T` of params.yaml, and what may stand there.

fix:                                  # the same in every trial: how short a trial is
  student.train.epochs: 4
choose:
  student.model.width: [8, 12, 16]    # one of these
  prune.ratio: {low: 0.1, high: 0.6}  # any number between; whole ones where both ends are
  distill.temperature: {low: 1.0, high: 8.0, log: true}
"""

import copy
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from optuna import Trial
from pydantic import BaseModel, ConfigDict, Field, model_validator

from limbeck.errors import ParamsError
from limbeck.params import section

Value: TypeAlias = bool | int | float | str | None


class Range(BaseModel):
    """Numbers from `low` to `high`, both included; with `log` each factor is as likely as another."""

    model_config = ConfigDict(extra="forbid")

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _has_room(self) -> "Range":
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"from {self.low} to {self.high} is no range" + (" of positive numbers" * self.log))
        return self


class Space(BaseModel):
    """The values of all trials, and the choices of each."""

    model_config = ConfigDict(extra="forbid")

    fix: dict[str, Value] = {}
    choose: Annotated[dict[str, Annotated[list[Value], Field(min_length=2)] | Range], Field(min_length=1)]

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """One point of the space, by the trial's sampler."""
        return {place: _suggest(trial, place, choice) for place, choice in self.choose.items()}


def _suggest(trial: Trial, place: str, choice: list[Value] | Range) -> Value:
    if isinstance(choice, list):
        return trial.suggest_categorical(place, choice)
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return trial.suggest_int(place, choice.low, choice.high, log=choice.log)
    return trial.suggest_float(place, choice.low, choice.high, log=choice.log)


def read(path: Path) -> Space:
    """A space from a YAML file.

    Raises:
        ParamsError: it is missing, or is no space.

    """
    return section(
        path, Space, missing="name a file such as searches/student.yaml", fault="describes no space of values"
    )


def with_values(raw: dict[str, Any], target: str, values: dict[str, Value]) -> dict[str, Any]:
    """Params of one target alone, with values in their places.

    Raises:
        ParamsError: there is no such target, or a place does not exist.

    """
    if target not in raw["targets"]:
        raise ParamsError(f"no target {target!r}; there are {', '.join(raw['targets'])}.")
    changed = {**raw, "targets": {target: copy.deepcopy(raw["targets"][target])}}
    for place, value in values.items():
        section: Any = changed["targets"][target]
        *path, last = place.split(".")
        for key in path:
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ParamsError(f"targets.{target} has no {place}; a search changes values that stand in params.yaml.")
        section[last] = value
    return changed

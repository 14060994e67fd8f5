"""Settings that move while training goes on: `{schedule: cosine, from: 8, to: 1}` where a number would stand.

Any numeric setting of any loss may be one, those of a user's own included. Both ends must be values that the setting
takes; all between them then are.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limbeck.components import nearest
from limbeck.errors import ComponentError

SCHEDULES = ("linear", "cosine")
KEY = "schedule"


class Schedule(BaseModel):
    """From one value to another over the first `until` of a training (a share of its steps), then the other one.

    linear: in equal steps; cosine: slowly at both ends (Loshchilov and Hutter 2017, SGDR, eq. 5).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Literal["linear", "cosine"]
    start: float = Field(alias="from")
    end: float = Field(alias="to")
    until: Annotated[float, Field(gt=0, le=1)] = 1.0

    def at(self, progress: float) -> float:
        """The value when so much of the training is done (0 to 1)."""
        done = min(1.0, progress / self.until)
        if done == 1:
            return self.end
        share = done if self.schedule == "linear" else (1 - math.cos(math.pi * done)) / 2
        return self.start + share * (self.end - self.start)


def is_schedule(value: Any) -> bool:
    """Whether a value stands for a schedule: a mapping that names one."""
    return isinstance(value, Mapping) and KEY in value


def read(value: Any, place: str) -> Schedule:
    """The schedule that a mapping describes; `place` names it in messages.

    Raises:
        ComponentError: an unknown schedule or key, or an end that is missing or no number.

    """
    if value[KEY] not in SCHEDULES:
        raise ComponentError(f"{place}: no schedule {value[KEY]!r}; {nearest(str(value[KEY]), list(SCHEDULES))}")
    known = [field.alias or name for name, field in Schedule.model_fields.items()]
    for key in value:
        if key not in known:
            raise ComponentError(f"{place}: a schedule has no {key!r}; {nearest(key, known)}")
    try:
        return Schedule.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "missing":
            raise ComponentError(f"{place}: a schedule needs `from` and `to`; add {problem['loc'][0]!r}.") from None
        raise ComponentError(f"{place}: {problem['loc'][0]} is {problem['input']!r}; {problem['msg']}.") from None


def ends(value: Any, end: Literal["start", "end"], place: str) -> Any:
    """A value as it is at one end of the training: every schedule in it, however deep, as that end's number."""
    if is_schedule(value):
        return getattr(read(value, place), end)
    if isinstance(value, Mapping):
        return {key: ends(inner, end, f"{place} {key}") for key, inner in value.items()}
    return [ends(inner, end, place) for inner in value] if isinstance(value, list) else value

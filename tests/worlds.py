"""A world that fits on a line, for tests: quick, and every return can be told by hand."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

NAME = "tests.worlds:Line-v0"
LONGEST = 12
GOAL = 3.0
GO = np.array([[-1.0, 0.0], [1.0, 0.0]])


class Line(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Walk to the right, from somewhere near 0 to `GOAL` or beyond; each step costs 1. Seen: the place, and noise."""

    observation_space = gymnasium.spaces.Box(-20.0, 20.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place = float(self.np_random.uniform(-1, 1))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.place += 1.0 if action else -1.0
        return self._seen(), -1.0, self.place >= GOAL, False, {}

    def _seen(self) -> NDArray[np.float32]:
        return np.array([self.place, self.np_random.normal()], np.float32)


gymnasium.register("Line-v0", entry_point=Line, max_episode_steps=LONGEST, reward_threshold=-4.0)
gymnasium.register("Endless-v0", entry_point=Line)


def rightwards(observations_EF: NDArray[Any]) -> NDArray[np.float64]:
    """The expert: to the right."""
    return np.tile([0.0, 1.0], (len(observations_EF), 1))


def leftwards(observations_EF: NDArray[Any]) -> NDArray[np.float64]:
    """The fool."""
    return np.tile([1.0, 0.0], (len(observations_EF), 1))


def settings(**changes: Any) -> dict[str, Any]:
    """Keywords of the source `episodes` in this world."""
    return {
        "environment": NAME, "expert": "tests.worlds:rightwards", "train": 12, "test": 4,
        "played": {"validation": 4, "test": 6}, "noise": 0.2, "actions": ["left", "right"], **changes,
    }  # fmt: skip

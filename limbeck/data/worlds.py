"""Worlds to decide in: environments of gymnasium, and what it takes to play the same episodes again.

Observations are samples, actions are classes. Legend: E episodes side by side, F features of an observation, K actions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from limbeck.errors import DataError

Answers: TypeAlias = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]
"""Whatever answers raw samples [N, ...] with logits [N, K]: a network in torch, a file in ONNX Runtime, a rule."""

AT_ONCE = 256
"""How many episodes are played side by side."""


class World(BaseModel):
    """The world that prepared samples come from, as `data/meta.json` seals it.

    Attributes:
        environment: gymnasium's name, with its version: `Acrobot-v1`.
        gymnasium: the version of the package that the samples were made with.
        floor: the return that counts as 0, that of random actions.
        goal: the return that counts as 1.
        played: first seed and number of the episodes that judge, by split; no sample comes from them.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str
    gymnasium: str
    floor: float
    goal: float
    played: dict[Literal["validation", "test"], tuple[int, int]]

    def share(self, returns_E: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far from the floor to the goal; a better policy than the goal asks for gets more than 1."""
        shares: NDArray[np.float64] = (returns_E - self.floor) / (self.goal - self.floor)
        return shares


class Step(NamedTuple):
    """One moment of E episodes.

    Attributes:
        alive: [E], which of them are not over yet.
        observations: [E, F] float32, before the action; the last one of those that are over.
        actions: [E], the likeliest by the answers: what the policy means to do, not the noise that may replace it.
        rewards: [E], 0 of those that are over.

    """

    alive: NDArray[np.bool_]
    observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]


def gym() -> Any:
    """The library (Towers et al. 2024, arXiv:2407.17032), which only decisions need.

    Raises:
        DataError: it is not installed.

    """
    try:
        import gymnasium
    except ModuleNotFoundError:
        raise DataError(
            "decisions are made in environments of gymnasium, which is not installed; it is the extra `decisions`. "
            "Next: pip install -e '.[pipeline,decisions]'"
        ) from None
    return gymnasium


def opened(environment: str) -> Any:
    """An environment with observations [F], K actions and an end to every episode.

    Raises:
        DataError: gymnasium is not installed or has none of that name, or it is of another kind.

    """
    library = gym()
    try:
        env = library.make(environment, disable_env_checker=True)
    except (library.error.Error, ImportError) as error:
        raise DataError(
            f"gymnasium cannot make the environment {environment!r}: {' '.join(str(error).split())}. Expected a name with "
            "a version, such as Acrobot-v1."
        ) from None
    spaces = library.spaces
    seen, done = env.observation_space, env.action_space
    if not (isinstance(seen, spaces.Box) and len(seen.shape) == 1):
        raise DataError(f"{environment} shows {seen}; expected a Box of one axis: observations [features].")
    if not (isinstance(done, spaces.Discrete) and done.n > 1 and int(done.start) == 0):
        raise DataError(
            f"{environment} takes actions of {done}; expected Discrete from 0: a policy chooses among classes. Wrap "
            "it in an environment that offers a few values of a continuous action."
        )
    if env.spec.max_episode_steps is None:
        raise DataError(f"episodes of {environment} need not end; register it with max_episode_steps.")
    return env


def unfold(environment: str, seeds: Sequence[int], answers: Answers, *, noise: float = 0.0) -> Iterator[Step]:
    """Play episodes side by side, one call of `answers` per step for all of them, until the last is over.

    An episode is a function of its seed and the answers. All are asked about to the end, also those that are over, so
    that the answers come from batches of one size.

    Args:
        environment: see `opened`.
        seeds: one for each episode.
        answers: raw observations [E, F] -> logits [E, K].
        noise: how often a random action replaces the likeliest.

    """
    envs = [opened(environment) for _ in seeds]
    chances = [np.random.default_rng(seed) for seed in seeds]
    try:
        seen = np.stack([env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)])
        observations = np.ascontiguousarray(seen, np.float32)
        alive = np.ones(len(envs), bool)
        while alive.any():
            actions = np.asarray(answers(observations)).argmax(axis=1)
            after, rewards, still = observations.copy(), np.zeros(len(envs)), alive.copy()
            for index in np.flatnonzero(alive):
                env, action = envs[index], int(actions[index])
                if noise and chances[index].random() < noise:
                    action = int(chances[index].integers(env.action_space.n))
                after[index], rewards[index], terminated, truncated, _ = env.step(action)
                still[index] = not (terminated or truncated)
            yield Step(alive, observations, actions, rewards)
            observations, alive = after, still
    finally:
        for env in envs:
            env.close()


def returns_of(environment: str, seeds: Sequence[int], answers: Answers, *, noise: float = 0.0) -> NDArray[np.float64]:
    """The return (sum of rewards) of each episode [len(seeds)], AT_ONCE of them side by side."""
    returns = np.zeros(len(seeds))
    for start in range(0, len(seeds), AT_ONCE):
        group = slice(start, start + AT_ONCE)
        for step in unfold(environment, seeds[group], answers, noise=noise):
            returns[group] += step.rewards
    return returns


def play(world: World, split: Literal["validation", "test"], answers: Answers) -> NDArray[np.float64]:
    """The share of each episode that judges on a split, in the order of their seeds: equal for all that are compared.

    Raises:
        DataError: gymnasium is not installed, or not the environment.

    """
    first, num = world.played[split]
    return world.share(returns_of(world.environment, range(first, first + num), answers))

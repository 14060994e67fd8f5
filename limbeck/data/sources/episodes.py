"""What an expert does in a world: observations that it meets, and the action that it would take in each."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, TypeAdapter

from limbeck.components import Component, resolve
from limbeck.data.reinforcement import PPO, learn
from limbeck.data.sources.source import Part, Source
from limbeck.data.worlds import AT_ONCE, Answers, World, gym, opened, returns_of, unfold
from limbeck.errors import DataError
from limbeck.params import Quality, Section

SEEDS = {"learning": 0, "train": 1, "test": 2, "validation played": 3, "test played": 4, "random": 5}
"""Which block of seeds episodes of each purpose begin with: none is played for two."""
BLOCK = 1_000_000
NUM_RANDOM = 50
"""How many episodes of random actions say what the floor is."""

Many = Annotated[int, Field(ge=2, lt=BLOCK)]


class Played(Section):
    """How many episodes judge on each split."""

    validation: Many
    test: Many


def episodes(
    *,
    environment: str,
    expert: PPO | str,
    train: Many,
    test: Many,
    played: Played,
    noise: Quality,
    actions: list[str] | None = None,
    floor: float | None = None,
    goal: float | None = None,
    seed: NonNegativeInt = 0,
) -> Source:
    """Observations that an expert meets, float32 [F], each with the action that it would take: the likeliest.

    Noise makes it leave its path, so that samples show how to come back, too: an imitator that errs once is somewhere that the
    expert alone never is (Ross et al. 2011, DAgger, AISTATS). With noise injected while the expert acts, its own action
    stays the label (Laskey et al. 2017, DART, CoRL). Each pass plays the episodes again, AT_ONCE side by side: the same
    observations, and memory holds those of one step.

    A policy that learned here is left beside the data as the checkpoint `expert`, to be the teacher itself.

    Args:
        environment: gymnasium's name for it; actions are choices, observations one axis of numbers.
        expert: how it learns by reinforcement (`limbeck.data.reinforcement.PPO`), or an import path,
            `custom.sources.FILE:NAME`, of your own: observations [E, F] -> a number for each action [E, K].
        train: how many episodes give samples to be divided among train, validation and calibration.
        test: how many give the test samples.
        played: how many episodes judge on each split. They are played by whoever is judged, and give no samples.
        noise: how often a random action replaces the expert's.
        actions: their names. Null: 0, 1, ...
        floor: the return that counts as 0. Null: the mean of random actions.
        goal: the return that counts as 1. Null: the environment's own `reward_threshold`.
        seed: of all this.

    Raises:
        DataError: gymnasium is not installed, or has no such environment; there is no goal above the floor, or a wrong number
            of names.
        ComponentError: the expert's import path leads nowhere.

    """
    judging = Played.model_validate(played)
    env = opened(environment)
    num_actions, shape, threshold = int(env.action_space.n), env.observation_space.shape, env.spec.reward_threshold
    env.close()
    names = tuple(actions) if actions is not None else tuple(str(number) for number in range(num_actions))
    if len(set(names)) != num_actions:
        raise DataError(f"{environment} has {num_actions} actions; data.source.actions names {', '.join(names)}.")

    def seeds(purpose: str, num: int) -> range:
        first = (seed * len(SEEDS) + SEEDS[purpose]) * BLOCK
        return range(first, first + num)

    if floor is None:
        idle = np.zeros(num_actions)
        random = returns_of(environment, seeds("random", NUM_RANDOM), lambda x: np.tile(idle, (len(x), 1)), noise=1.0)
        floor = float(random.mean())
    goal = threshold if goal is None else goal
    if goal is None or goal <= floor:
        raise DataError(
            f"{environment}: the goal is {goal}, the floor {floor:g}; expected a goal above the floor. Give data.source a "
            "`goal`, the return that counts as 1."
        )
    world = World(
        environment=environment, gymnasium=gym().__version__, floor=floor, goal=float(goal),
        played={
            "validation": (seeds("validation played", judging.validation).start, judging.validation),
            "test": (seeds("test played", judging.test).start, judging.test),
        },
    )  # fmt: skip
    told = TypeAdapter[PPO | str](PPO | str).validate_python(expert)
    if isinstance(told, str):
        answers: Answers = resolve(Component(use=told), {}, "data source")
        beside = {}
    else:
        learned = learn(environment, told, seeds("learning", 1).start)
        answers = learned.answers
        beside = {"expert": lambda folder: learned.save(folder, shape, names)}
    parts = (
        _part(environment, seeds(purpose, num), answers, noise) for purpose, num in (("train", train), ("test", test))
    )
    return Source(environment, names, next(parts), next(parts), world=world, beside=beside)


def _part(environment: str, seeds: Sequence[int], answers: Answers, noise: float) -> Part:
    """The samples of these episodes: played once for their labels, and again in every pass."""

    def steps() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for start in range(0, len(seeds), AT_ONCE):
            for step in unfold(environment, seeds[start : start + AT_ONCE], answers, noise=noise):
                yield step.observations[step.alive], step.actions[step.alive]

    def samples() -> Iterator[NDArray[Any]]:
        for observations, _ in steps():
            yield from observations

    return Part(np.concatenate([actions for _, actions in steps()]), samples)

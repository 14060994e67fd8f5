"""Worlds, and the source that plays an expert in them."""

import builtins
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck import models
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.data.worlds import World, play, returns_of, unfold
from limbeck.errors import ComponentError, DataError
from limbeck.params import SplitParams
from tests import worlds

SPLIT = SplitParams(test=None, validation=0.2, calibration=0.1)
PPO = {
    "width": 16, "depth": 1, "steps": 2048, "hold": 1, "environments": 8, "horizon": 32, "epochs": 4, "batch_size": 64,
    "lr": 0.005, "discount": 0.95, "smoothing": 0.9, "clip": 0.2, "entropy": 0.01,
}  # fmt: skip


def source(**changes: Any) -> Any:
    return open_source(Component.model_validate({"use": "episodes", **worlds.settings(**changes)}))


def test_the_same_seeds_and_answers_play_the_same_episodes() -> None:
    one, again = (returns_of(worlds.NAME, range(5, 9), worlds.rightwards) for _ in range(2))
    assert np.array_equal(one, again)
    assert set(one) <= {-3.0, -4.0}, "from -1..1 to 3 by steps of 1"
    assert np.array_equal(returns_of(worlds.NAME, [7], worlds.rightwards), one[2:3]), "whatever is played beside it"
    assert (returns_of(worlds.NAME, range(4), worlds.leftwards) == -worlds.LONGEST).all()


def test_all_episodes_are_asked_about_in_batches_of_one_size() -> None:
    sizes = []

    def answers(observations: np.ndarray) -> np.ndarray:
        sizes.append(len(observations))
        return worlds.rightwards(observations)

    steps = list(unfold(worlds.NAME, range(6), answers))
    assert set(sizes) == {6}
    assert len(steps) == 4
    assert not steps[-1].alive.all(), "some were over before"
    assert (steps[-1].rewards[~steps[-1].alive] == 0).all()


def test_noise_changes_what_is_done_and_not_what_is_meant() -> None:
    steps = list(unfold(worlds.NAME, range(20), worlds.rightwards, noise=0.5))
    assert all((step.actions == 1).all() for step in steps)
    assert len(steps) > 4


def test_a_share_is_0_for_chance_and_1_for_the_goal() -> None:
    world = World(environment=worlds.NAME, gymnasium="1", floor=-12, goal=-4, played={"test": (0, 8)})
    assert world.share(np.array([-12.0, -8.0, -4.0])).tolist() == [0, 0.5, 1]
    assert (play(world, "test", worlds.leftwards) == 0).all()
    assert (play(world, "test", worlds.rightwards) >= 1).all(), "better than the goal asks for is more than 1"


def test_samples_are_what_the_expert_meets_and_labels_what_it_would_do() -> None:
    found = source()
    assert found.classes == ("left", "right")
    for part in (found.train, found.test):
        first, again = (np.stack(list(part.samples())) for _ in range(2))
        assert first.dtype == np.float32
        assert np.array_equal(first, again), "every pass plays the same episodes"
        assert first.shape == (len(part.labels), 2)
        assert (part.labels == 1).all()


def test_no_episode_is_played_for_two_purposes() -> None:
    found = source()
    blocks = [set(np.stack(list(part.samples()))[:, 0].tolist()) for part in (found.train, found.test)]
    assert not blocks[0] & blocks[1]
    (first, num), (other, many) = found.world.played["validation"], found.world.played["test"]
    assert not set(range(first, first + num)) & set(range(other, other + many))
    assert source(seed=1).world.played["validation"][0] > other + many


def test_memory_does_not_grow_with_the_episodes() -> None:
    peaks = []
    for num in (300, 1500):
        part = source(train=num).train
        tracemalloc.start()
        assert sum(1 for _ in part.samples()) == len(part.labels)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_the_floor_is_chance_and_the_goal_the_environments_own() -> None:
    world = source().world
    assert -worlds.LONGEST <= world.floor < -6
    assert world.goal == -4
    assert (source(floor=-9, goal=-2).world.floor, source(floor=-9, goal=-2).world.goal) == (-9, -2)


def test_a_policy_learns_by_reinforcement_and_is_left_as_a_checkpoint(tmp_path: Path) -> None:
    metas = []
    for name in ("one", "again"):
        found = source(expert=PPO)
        metas.append(splits.write(tmp_path / name, found, SPLIT, 0))
    assert metas[0].digest == metas[1].digest, "to the bit"
    assert "expert/weights.safetensors" in metas[0].sha256
    _, network = models.load(tmp_path / "one" / "expert")
    from limbeck.prediction import predict

    assert play(metas[0].world, "test", lambda x: predict(network, x)).mean() > 0.9  # type: ignore[arg-type]


def test_the_world_is_part_of_what_the_data_are(tmp_path: Path) -> None:
    digests = set()
    for goal in (-4, -3):
        meta = splits.write(tmp_path / str(goal), mixed(goal=goal), SPLIT, 0)
        assert splits.read_meta(tmp_path / str(goal)).world == meta.world
        digests.add(meta.digest)
    assert len(digests) == 2


def mixed(**changes: Any) -> Any:
    """An expert that does both."""
    return source(expert="tests.data.test_episodes:to_and_fro", noise=0.5, **changes)


def to_and_fro(observations: np.ndarray) -> np.ndarray:
    return np.stack([observations[:, 1], np.zeros(len(observations))], axis=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": "Acrobat-v1"}, "gymnasium cannot make the environment 'Acrobat-v1': .*such as Acrobot-v1"),
        ({"environment": "no_such_module:A-v0"}, "cannot make the environment 'no_such_module:A-v0'"),
        ({"environment": "Pendulum-v1"}, "Pendulum-v1 takes actions of Box.*a few values of a continuous action"),
        ({"environment": "FrozenLake-v1"}, "FrozenLake-v1 shows Discrete.*expected a Box of one axis"),
        ({"environment": "tests.worlds:Endless-v0"}, "need not end; register it with max_episode_steps"),
        ({"actions": ["left"]}, "has 2 actions; data.source.actions names left"),
        ({"goal": -20.0}, "the goal is -20.0, the floor .*expected a goal above the floor"),
    ],
)
def test_what_is_no_world_to_decide_in_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert": "tests.worlds:rigthwards"}, "tests.worlds has no callable 'rigthwards'; did you mean 'rightwards'"),
        ({"expert": PPO | {"clip": 2}}, "expert is"),
        ({"noise": 1.5}, "noise is 1.5; Input should be less than or equal to 1"),
        ({"played": {"validation": 4}, "train": 1}, "train is 1; Input should be greater than or equal to 2"),
        ({"played": {"train": 4}}, "played is"),
        ({"played": {"test": 4}}, "played is"),
    ],
)
def test_settings_that_cannot_be_are_told_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        source(**changes)


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "gymnasium":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(DataError, match=r"the extra `decisions`.*pip install -e '.\[pipeline,decisions\]'"):
        source()

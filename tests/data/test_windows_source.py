"""Old samples keep their split; new ones are divided; none of the old exam is ever learnt."""

import shutil
import tempfile
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.data.sources.source import Source, in_memory
from limbeck.data.sources.windows import windows
from limbeck.data.window import About, Counts, read_about, seal, write_about
from limbeck.errors import DataError
from limbeck.params import SplitParams

SHARES = SplitParams(test=0.25, validation=0.2, calibration=0.1)
CLASSES = ("a", "b")


def numbered(numbers: Any) -> NDArray[np.uint8]:
    """Samples [N, 4] that each say a number."""
    return np.asarray(numbers, np.uint32).reshape(-1, 1).view(np.uint8)


def said(x: NDArray[Any]) -> list[int]:
    return [int(number) for number in np.ascontiguousarray(x).view(np.uint32)[:, 0]]


def window(folder: Path, numbers: Any, y: Any, classes: tuple[str, ...] = CLASSES) -> Path:
    folder.mkdir(parents=True)
    x = numbered(numbers)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", np.asarray(y, np.int64))
    counts = Counts(labelled=len(x), unlabelled=0, by_people=0, repeated=0, broken=0, not_finite=0, out_of_range=0)
    write_about(
        folder,
        About(
            name=folder.name, origin="drop", arrived=datetime(2026, 11, 21, tzinfo=UTC), classes=classes, counts=counts,
            labelled_by="people", teacher=None, replaces=None, source="", notes=(), **seal(folder.iterdir(), classes),
        ),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers 0..199, odd ones of class b."""
    folder = tmp_path_factory.mktemp("base") / "data"
    splits.write(folder, Source("old", CLASSES, in_memory(numbered(range(200)), np.arange(200) % 2)), SHARES, 0)
    return folder


def old(base: Path, name: splits.SplitName) -> set[int]:
    return set(said(splits.read(base, name)[0]))


def test_old_samples_keep_their_split_and_new_ones_reach_all(base: Path, tmp_path: Path) -> None:
    new = window(tmp_path / "w1", range(1000, 1100), np.arange(100) % 2)
    meta = splits.write(tmp_path / "data", windows(base=str(base), folders=[str(new)], replay=1), SHARES, 0)
    for name in splits.NAMES:
        x, y = splits.read(tmp_path / "data", name)
        origin = splits.read_origin(tmp_path / "data", name)
        assert origin.dtype == np.int16
        assert set(said(x[origin == 0])) == old(base, name)
        assert all(number >= 1000 for number in said(x[origin == 1]))
        assert (np.array(said(x)) % 2 == y).all()
        assert (origin == 1).sum() == pytest.approx(
            100 * {"train": 0.45, "test": 0.25, "validation": 0.2}.get(name, 0.1), abs=1
        )
    assert [(each.name, each.samples, each.repeated) for each in meta.windows] == [("w1", 100, 0)]
    assert splits.read_meta(tmp_path / "data") == meta


@settings(max_examples=10)
@given(
    numbers=st.lists(st.lists(st.integers(0, 400), max_size=60), min_size=1, max_size=3),
    replay=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_no_old_exam_is_ever_learnt_and_no_sample_stands_twice(
    base: Path, numbers: list[list[int]], replay: float, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folders = [
            str(window(folder / f"w{number}", [*each, *range(5000, 5040)], np.arange(len(each) + 40) % 3 - 1))
            for number, each in enumerate(numbers)
        ]
        source = windows(base=str(base), folders=folders, replay=replay, seed=seed)
        splits.write(folder / "data", source, SHARES, seed)
        found = {name: said(splits.read(folder / "data", name)[0]) for name in splits.NAMES}
    for name in ("validation", "calibration", "test"):
        assert old(base, name) <= set(found[name])
    everything = [number for each in found.values() for number in each]
    assert len(everything) == len(set(everything))
    exams = old(base, "validation") | old(base, "calibration") | old(base, "test")
    assert not exams & set(found["train"])
    replayed = set(found["train"]) & old(base, "train")
    assert len(replayed) == pytest.approx(replay * len(old(base, "train")), abs=2)


def test_a_new_sample_that_stands_among_the_old_is_left_out_and_counted(base: Path, tmp_path: Path) -> None:
    known = sorted(old(base, "test"))[:7] + sorted(old(base, "train"))[:2]
    new = window(tmp_path / "w", [*known, *range(1000, 1050), 1000], np.arange(60) % 2)
    source = windows(base=str(base), folders=[str(new)], replay=0.5)
    assert [(each.samples, each.repeated) for each in source.windows] == [(50, 10)]


def test_of_a_sample_in_two_windows_the_later_label_counts(base: Path, tmp_path: Path) -> None:
    first = window(tmp_path / "w1", range(1000, 1050), np.zeros(50))
    second = window(tmp_path / "w2", range(1000, 1050), np.arange(50) % 2)
    source = windows(base=str(base), folders=[str(first), str(second)], replay=1)
    assert [each.samples for each in source.windows] == [0, 50]
    splits.write(tmp_path / "data", source, SHARES, 0)
    for name in splits.NAMES:
        x, y = splits.read(tmp_path / "data", name)
        new = splits.read_origin(tmp_path / "data", name) == 2
        assert (np.array(said(x[new])) % 2 == y[new]).all()


def test_replay_is_stratified_and_seeded(base: Path) -> None:
    def labels(replay: float, seed: int, folder: Path) -> Any:
        part = windows(base=str(base), folders=[str(folder)], replay=replay, seed=seed).train
        assert part.assigned is not None
        mask = part.assigned == 0
        return part.labels[mask], [bytes(each) for each, own in zip(part.samples(), mask, strict=True) if own]

    with tempfile.TemporaryDirectory() as place:
        folder = window(Path(place) / "w", range(1000, 1050), np.arange(50) % 2)
        y, x = labels(0.3, 0, folder)
        train = splits.read(base, "train")[1]
        assert np.bincount(y).tolist() == [round(0.3 * each) for each in np.bincount(train)]
        assert labels(0.3, 0, folder)[1] == x
        assert labels(0.3, 1, folder)[1] != x


def test_new_classes_stand_behind_the_old_ones(base: Path, tmp_path: Path) -> None:
    first = window(tmp_path / "w1", range(1000, 1060), [0, 2] * 30, (*CLASSES, "z"))
    second = window(tmp_path / "w2", range(2000, 2060), [2, 3] * 30, (*CLASSES, "y", "z"))
    folders = [str(first), str(second)]
    made = windows(base=str(base), folders=folders, replay=1)
    assert made.classes == ("a", "b", "z", "y")
    splits.write(tmp_path / "data", made, SHARES, 0)
    x, y = splits.read(tmp_path / "data", "train")
    for number, label in zip(said(x), y, strict=True):
        expected = number % 2 if number < 1000 else (0, 2)[number % 2] if number < 2000 else (3, 2)[number % 2]
        assert label == expected
    asked = ["a", "b", "y", "z"]
    assert windows(base=str(base), folders=folders, replay=1, classes=asked).classes == tuple(asked)
    with pytest.raises(DataError, match="hold samples of y, which data.source.classes does not name"):
        windows(base=str(base), folders=folders, replay=1, classes=["a", "b", "z"])
    with pytest.raises(DataError, match="expected the known ones first, in their order and each once: a, b"):
        windows(base=str(base), folders=folders, replay=1, classes=["b", "a", "y", "z"])


def test_a_new_class_has_to_reach_train_validation_and_test(base: Path, tmp_path: Path) -> None:
    new = window(tmp_path / "w", range(1000, 1042), [0, 1] * 20 + [2, 2], (*CLASSES, "z"))
    with pytest.raises(DataError, match="has 2 samples of the new class z, too few to reach"):
        splits.write(tmp_path / "data", windows(base=str(base), folders=[str(new)], replay=1), SHARES, 0)


def test_a_known_class_may_be_rare_among_the_new(base: Path, tmp_path: Path) -> None:
    new = window(tmp_path / "w", range(1000, 1041), [0] * 40 + [1])
    meta = splits.write(tmp_path / "data", windows(base=str(base), folders=[str(new)], replay=0.1), SHARES, 0)
    assert sum(meta.counts.values()) == 200 - 90 + 8 + 41 or meta.counts["train"] > 0


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda base, place: windows(base=str(place), folders=["w"], replay=1), "meta.json is missing"),
        (lambda base, place: windows(base=str(base), folders=["absent"], replay=1), "absent is missing"),
        (lambda base, place: windows(base=str(base), folders=[str(place)], replay=1), "is no window"),
        (
            lambda base, place: windows(base=str(base), folders=[str(window(place / "w", [1, 2], [0, 1]))], replay=1),
            "none of 2 samples of .* is new and labelled",
        ),
        (
            lambda base, place: windows(base=str(base), folders=[str(window(place / "w", [900], [-1]))], replay=1),
            "none of 1 samples of .* is new and labelled",
        ),
        (lambda base, place: windows(base=str(base), folders=["w"], replay=1, digest="0"), "is not the data expected"),
    ],
)
def test_what_cannot_be_joined_is_refused(base: Path, tmp_path: Path, made: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(base, tmp_path)


def test_samples_of_another_kind_are_refused(base: Path, tmp_path: Path) -> None:
    new = window(tmp_path / "w", [900, 901], [0, 1])
    shutil.rmtree(new)
    new.mkdir()
    np.save(new / "x.npy", np.zeros((2, 5), np.uint8))
    np.save(new / "y.npy", np.zeros(2, np.int64))
    counts = Counts(labelled=2, unlabelled=0, by_people=0, repeated=0, broken=0, not_finite=0, out_of_range=0)
    write_about(
        new,
        About(
            name="w", origin="drop", arrived=datetime(2026, 11, 21, tzinfo=UTC), classes=CLASSES, counts=counts,
            labelled_by="people", teacher=None, replaces=None, source="", notes=(), **seal(new.iterdir(), CLASSES),
        ),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"holds samples of uint8\[5\]; expected uint8\[4\]"):
        windows(base=str(base), folders=[str(new)], replay=1)


def test_the_source_is_a_component(base: Path, tmp_path: Path) -> None:
    new = window(tmp_path / "w", range(1000, 1050), np.arange(50) % 2)
    component = Component(use="windows", base=str(base), folders=[str(new)], replay=0.5, classes=None)
    assert open_source(component).windows[0].name == "w"


def test_joined_data_can_be_the_base_of_the_next_refresh(base: Path, tmp_path: Path) -> None:
    first = window(tmp_path / "w1", range(1000, 1050), np.arange(50) % 2)
    second = window(tmp_path / "w2", range(1040, 1090), np.arange(50) % 2)
    splits.write(tmp_path / "one", windows(base=str(base), folders=[str(first)], replay=1), SHARES, 0)
    again = windows(base=str(tmp_path / "one"), folders=[str(first), str(second)], replay=1)
    assert [(each.samples, each.repeated) for each in again.windows] == [(0, 50), (40, 10)]
    splits.write(tmp_path / "two", again, SHARES, 1)
    for name in splits.NAMES:
        assert old(tmp_path / "one", name) <= old(tmp_path / "two", name)


def test_refresh_after_refresh_replays_the_first_data_and_keeps_what_was_learned(base: Path, tmp_path: Path) -> None:
    root, made = {"root": str(base), "root_digest": splits.read_meta(base).digest}, base
    for number in (1, 2, 3):
        new = window(tmp_path / f"w{number}", range(1000 * number, 1000 * number + 40), np.arange(40) % 2)
        more = root if number > 1 else {}
        splits.write(
            tmp_path / str(number), windows(base=str(made), folders=[str(new)], replay=0.3, **more), SHARES, number
        )
        made = tmp_path / str(number)
    meta, origin = splits.read_meta(made), splits.read_origin(made, "train")
    assert ([each.name for each in meta.learned], [each.name for each in meta.windows]) == (["w1", "w2"], ["w3"])
    numbers = np.array(said(splits.read(made, "train")[0]))
    assert set(origin.tolist()) == {0, -1, -2, 1}
    for origin_of, start in ((-1, 1000), (-2, 2000), (1, 3000)):
        assert (numbers[origin == origin_of] // 1000 == start // 1000).all()
        assert (origin == origin_of).sum() == pytest.approx(0.45 * 40, abs=2)
    assert (origin == 0).sum() == pytest.approx(0.3 * splits.read_meta(base).counts["train"], abs=2)
    assert set(numbers[origin == 0].tolist()) <= old(base, "train")
    for name in ("validation", "test"):
        assert old(tmp_path / "2", name) <= old(made, name), "no exam is ever learnt"


def test_a_sample_of_the_first_data_is_not_new_though_it_was_not_replayed(base: Path, tmp_path: Path) -> None:
    splits.write(
        tmp_path / "one", windows(base=str(base), folders=[str(window(tmp_path / "w1", range(1000, 1040), np.arange(40) % 2))], replay=0.1),
        SHARES, 0,
    )  # fmt: skip
    again = window(
        tmp_path / "w2", [*sorted(old(base, "train")), *range(2000, 2040)], np.zeros(40 + len(old(base, "train")))
    )
    (told,) = windows(base=str(tmp_path / "one"), folders=[str(again)], replay=0.1, root=str(base)).windows
    assert (told.samples, told.repeated) == (40, len(old(base, "train")))


def test_classes_that_have_to_wait_are_left_out(base: Path, tmp_path: Path) -> None:
    three = window(tmp_path / "w", range(1000, 1060), np.arange(60) % 3, ("a", "b", "c"))
    found = windows(base=str(base), folders=[str(three)], replay=1, leave_out=["c"])
    assert (found.classes, found.windows[0].samples, found.windows[0].unlabelled) == (CLASSES, 40, 20)


def test_memory_stays_flat_however_many_samples_there_are(tmp_path: Path) -> None:
    def peak(num: int) -> int:
        place = tmp_path / str(num)
        chance = np.random.default_rng(0)
        x = chance.integers(0, 256, (num, 256, 128), np.uint8)
        splits.write(place / "base", Source("old", CLASSES, in_memory(x, np.arange(num) % 2)), SHARES, 0)
        new = window(place / "w", range(num), np.arange(num) % 2)
        np.save(new / "x.npy", chance.integers(0, 256, (num, 256, 128), np.uint8))
        about = read_about(new)
        write_about(new, about.model_copy(update=seal([new / "x.npy", new / "y.npy"], CLASSES)))
        del x
        tracemalloc.start()
        source = windows(base=str(place / "base"), folders=[str(new)], replay=0.5)
        splits.write(place / "data", source, SHARES, 0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(150) < peak(50) + 1_000_000  # 6 MB more went through


def test_ordinary_data_have_no_origin_and_nothing_new(base: Path) -> None:
    assert "windows" not in (base / "meta.json").read_text()
    assert sorted(path.name for path in base.rglob("*.npy")) == ["x.npy"] * 4 + ["y.npy"] * 4
    assert not splits.read_origin(base, "train").any()


@given(st.integers(1, 400), st.integers(1, 5), st.integers(0, 100))
def test_dealing_keeps_the_shares_within_every_stratum(num: int, strata: int, seed: int) -> None:
    owners = splits.deal(np.arange(num) % strata, SHARES, seed)
    for stratum in [slice(None), *(np.arange(num) % strata == each for each in range(strata))]:
        counts = np.bincount(owners[stratum], minlength=4)
        assert np.abs(counts - counts.sum() * np.array([0.45, 0.2, 0.1, 0.25])).max() < 2.5

"""A drop folder becomes windows."""

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from limbeck.data import splits
from limbeck.data.prepared import NAMES, SplitName
from limbeck.data.sources.source import Source, in_memory
from limbeck.data.window import read_about, read_keys, read_window
from limbeck.errors import DataError
from limbeck.params import SplitParams
from limbeck.windows import shelf
from limbeck.windows.entries import name_of
from limbeck.windows.intake import Intake, digests
from limbeck.windows.labelling import Teacher
from limbeck.windows.reference import Reference
from limbeck.windows.rules import WindowRules
from tests.windows.conftest import CLASSES, RULES, TEACHER, Yard, drawn, prepared


def tree(folder: Path) -> dict[str, str]:
    """Every file's digest, locks excepted."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def why(yard: Yard, name: str) -> shelf.Why:
    return shelf.read_why(yard.windows / "aside" / name)


def checks(yard: Yard, name: str) -> list[str]:
    return [reason.check for reason in why(yard, name).reasons]


def test_labelled_arrays_become_a_window_and_leave_the_drop_folder(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("camera 3.npz", x=x, y=y)
    (arrived,) = yard.take().arrived
    assert (arrived.name, arrived.reasons) == ("camera-3", ())
    window = read_window(arrived.folder)
    assert isinstance(window.x, np.memmap)
    assert (window.x == x).all()
    assert (window.y == y).all()
    assert window.is_by_people.all()
    assert window.about.classes == CLASSES
    assert (window.about.origin, window.about.labelled_by) == ("drop", "people")
    assert window.about.counts.labelled == 60
    assert [path.name for path in yard.drop.iterdir()] == [".taken"]
    assert (yard.drop / ".taken/camera-3/camera 3.npz").is_file()


def test_labels_may_be_names_or_indices_into_names_and_some_may_be_missing(yard: Yard) -> None:
    x, y = drawn(60, 1)
    y[:10] = -1
    yard.put("indices", x=x, y=y)
    yard.put("named", x=drawn(60, 2)[0], y=["" if label < 0 else CLASSES[label] for label in y])
    yard.put("other", x=drawn(60, 3)[0], y=np.where(y < 0, -1, 2 - y), classes=CLASSES[::-1])
    for each in ("indices", "named", "other"):
        (yard.drop / each).with_suffix(".npz").rename(yard.drop / f"{each}.npz")
    arrived = yard.take(teacher=None).arrived
    assert [(read_window(each.folder).y == y).all() for each in arrived] == [True] * 3
    assert read_about(arrived[0].folder).notes == ("no teacher looked at the labels",)


def test_the_teacher_labels_what_nobody_did_and_its_doubts_stay_out(yard: Yard) -> None:
    x, y = drawn(60, 1)
    x[:5] = 94 + np.arange(5, dtype=np.uint8)[:, None, None, None] // 2  # between dark and middle
    x[:5, 0, 0, 0] = 90 + np.arange(5)
    yard.put("new.npz", x=x)
    (arrived,) = yard.take().arrived
    window = read_window(arrived.folder)
    assert (window.y[:5] == -1).all()
    assert (window.y[5:] == y[5:]).all()
    assert (window.confidence[:5] < 0.8).all()
    assert (window.confidence[5:] >= 0.8).all()
    assert not window.is_by_people.any()
    assert (window.about.labelled_by, window.about.teacher) == ("teacher", TEACHER.digest)
    assert (window.about.counts.labelled, window.about.counts.unlabelled) == (55, 5)


def test_what_people_left_out_the_teacher_fills_in(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("new.npz", x=x, y=np.where(np.arange(60) < 30, y, -1))
    window = read_window(yard.take().arrived[0].folder)
    assert (window.y == y).all()
    assert window.is_by_people.tolist() == [True] * 30 + [False] * 30
    assert window.about.labelled_by == "both"


def picture(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)[..., 0]).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_are_scaled_as_the_base_data_and_a_folder_may_be_unlabelled(yard: Yard, kind: str) -> None:
    x, y = drawn(60, 1)
    files = {
        f"{CLASSES[label] if number % 4 else 'unlabelled'}/{number:02}.png": picture(pixels)
        for number, (pixels, label) in enumerate(zip(x, y, strict=True))
    }
    x[7] = x[7, 0, 0, 0]
    files[f"{CLASSES[y[7]]}/07.png"] = picture(np.full((12, 12, 1), x[7, 0, 0, 0]))
    yard.drop.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(yard.drop / "walk.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (yard.drop / "walk" / name).parent.mkdir(parents=True, exist_ok=True)
            (yard.drop / "walk" / name).write_bytes(content)
    (arrived,) = yard.take(teacher=None).arrived
    window, keys = read_window(arrived.folder), read_keys(arrived.folder)
    assert sorted(keys) == sorted(files)
    numbers = [int(Path(key).stem) for key in keys]
    assert (window.x == x[numbers]).all()
    assert (window.y == np.where(np.array(numbers) % 4, y[numbers], -1)).all()


def test_an_entry_in_which_something_changed_of_late_waits(yard: Yard) -> None:
    entry = yard.put("new.npz", x=drawn(60, 1)[0])
    os.utime(entry, (0, 0))  # a copying program may set that back
    rules = RULES.model_copy(update={"settle_s": 10_000})
    assert yard.take(rules).waiting == ("new.npz",)
    assert entry.exists()
    assert not list(yard.windows.glob("new*"))


@pytest.mark.parametrize("name", [".new.npz", "new.npz.partial", "new.part", "new.npz.tmp"])
def test_a_name_can_say_that_an_entry_is_unfinished(yard: Yard, name: str) -> None:
    yard.put("new.npz", x=drawn(60, 1)[0]).rename(yard.drop / name)
    assert not yard.take().arrived
    assert (yard.drop / name).exists()


def test_a_request_is_no_window_and_stays_where_it_is(yard: Yard) -> None:
    yard.drop.mkdir()
    request = yard.drop / "noon.request.yaml"
    request.write_text("new_classes: [truck]")
    assert yard.take() == Intake((), ())
    assert request.is_file()


def test_an_entry_that_changes_while_it_is_read_waits(yard: Yard, base: Path) -> None:
    entry = yard.put("new.npz", x=drawn(60, 1)[0])

    def meanwhile(x: Any) -> Any:
        return TEACHER.answers(x)

    real = np.lib.format.read_magic

    def grows(stream: Any) -> Any:
        with entry.open("ab") as end:
            end.write(b"more")
        return real(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.lib.format, "read_magic", grows)
        taken = yard.take(teacher=Teacher(meanwhile, "t"))
    assert (taken.arrived, taken.waiting) == ((), ("new.npz",))
    assert not list(yard.windows.glob("new*"))


def test_the_same_entry_again_makes_nothing_new_another_of_its_name_gets_a_name_of_its_own(yard: Yard) -> None:
    x, y = drawn(60, 1)
    first = yard.put("new.npz", x=x, y=y).read_bytes()
    yard.take()
    before = tree(yard.windows)
    (yard.drop / "new.npz").write_bytes(first)
    (again,) = yard.take().arrived
    assert (again.name, tree(yard.windows)) == ("new", before)
    yard.put("new.npz", x=drawn(60, 2)[0])
    (other,) = yard.take().arrived
    assert re.fullmatch(r"new-[0-9a-f]{8}", other.name)


class Killed(BaseException):
    """No handler but `finally` sees it."""


CALLS = ("replace", "rename", "mkdir", "fsync", "rmdir")


def until_killed(yard: Yard, call: int, patch: pytest.MonkeyPatch) -> bool:
    """Take in, and die at a change of the disk, counted from 0; whether it came so far."""
    made = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            nonlocal made
            made += 1
            if made > call:
                raise Killed
            return real(*arguments, **more)

        return wrapped

    with patch.context() as inner:
        for name in CALLS:
            inner.setattr(os, name, counted(getattr(os, name)))
        try:
            yard.take()
        except Killed:
            return True
    return False


def fill(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("a.npz", x=x, y=y)
    yard.put("b.npz", x=drawn(60, 2)[0], y=2 - y)  # poison
    yard.put("c.npz", x=drawn(60, 3)[0])
    (yard.drop / "c.labels.csv").write_text("sample,class\n0,dark\n1,middle\n")


@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_anywhere_the_next_call_ends_in_the_same_windows(
    yard: Yard, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    fill(yard)
    origin, calls = tmp_path / "origin", 0
    shutil.copytree(yard.drop, origin)

    def content(windows: Path) -> dict[str, str]:
        """All but when the entries arrived, which is when they were copied here."""
        digests = {path.name: read_about(path).digest for path in shelf.folders(windows)}
        asides = {path.name: [each.found for each in shelf.read_why(path).reasons] for path in shelf.set_aside(windows)}
        files = set(tree(windows))
        return {**digests, **{name: str(found) for name, found in asides.items()}, "files": str(sorted(files))}

    yard.take()
    expected = content(yard.windows)
    assert len(expected) == 5
    for call in range(0, 1000, every):
        other = Yard(tmp_path / f"killed-{call}", base)
        shutil.copytree(origin, other.drop)
        if not until_killed(other, call, monkeypatch):
            break
        calls += 1
        other.take()
        assert content(other.windows) == expected
        assert [path.name for path in other.drop.iterdir()] == [".taken"]
        shutil.rmtree(other.place)
    assert calls > 2


def test_samples_that_are_there_already_are_dropped_and_counted(yard: Yard, base: Path) -> None:
    x, y = drawn(60, 1)
    old = np.load(base / "test/x.npy")[:10]
    yard.put("first.npz", x=np.concatenate([x, x[:3], old]), y=np.concatenate([y, y[:3], y[:10]]))
    yard.put("second.npz", x=np.concatenate([x[:5], drawn(60, 2)[0]]))
    counts = [read_about(each.folder).counts for each in yard.take().arrived]
    assert [(each.repeated, each.kept) for each in counts] == [(13, 60), (5, 60)]


@pytest.fixture
def refreshed(base: Path, tmp_path: Path) -> Path:
    """Data of a refreshed champion: every fifth of the old training samples, and 60 new ones."""
    parts = [(np.load(base / "train/x.npy")[::5], np.load(base / "train/y.npy")[::5]), drawn(60, 7)]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    source = Source("refreshed", CLASSES, in_memory(x, y))
    splits.write(tmp_path / "refreshed", source, SplitParams(test=0.3, validation=0.3, calibration=0.1), 0)
    return tmp_path / "refreshed"


@pytest.mark.parametrize(("left", "repeated"), [(NAMES, 20), (("train",), 20), ((), 4)])
def test_originals_are_known_to_a_refreshed_champion_as_far_as_they_are_on_the_disk(
    base: Path, refreshed: Path, tmp_path: Path, left: tuple[SplitName, ...], repeated: int
) -> None:
    for name in left:
        shutil.copytree(base / name, tmp_path / "root" / name)
    yard = Yard(tmp_path, refreshed)
    yard.put("new.npz", x=np.concatenate([np.load(base / "train/x.npy")[:20], drawn(60, 1)[0]]))
    (arrived,) = yard.take(root=tmp_path / "root").arrived
    assert read_about(arrived.folder).counts.repeated == repeated


def test_a_sample_that_was_replayed_is_known_once(base: Path, refreshed: Path) -> None:
    assert len(Reference(refreshed, None, base).fingerprints) == 300 + 60
    assert len(Reference(base, None, base).fingerprints) == len(Reference(base, None).fingerprints) == 300


def test_a_window_that_repeats_too_much_is_set_aside(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("first.npz", x=x, y=y)
    yard.put("second.npz", x=np.concatenate([x, drawn(30, 2)[0]]))
    (arrived,) = yard.take().arrived[1:]
    assert checks(yard, "second") == ["repeated"]
    assert arrived.reasons[0].found.startswith("60 of 90 stand in data/, in an earlier window")
    assert not (yard.windows / "second").exists()


@pytest.mark.parametrize(
    ("arrays", "check", "found"),
    [
        ({"x": drawn(9, 1)[0]}, "too few", "9 of 9 that arrived"),
        ({"x": np.full((60, 4, 4, 1), 128, np.uint8) + np.arange(60, dtype=np.uint8).reshape(-1, 1, 1, 1) // 30
          + np.eye(60, 16, dtype=np.uint8).reshape(60, 4, 4, 1)}, "repeated", "stand in data/"),
        ({"x": 128 + np.random.default_rng(0).integers(0, 3, (60, 4, 4, 1), np.uint8)}, "near-constant", "times"),
        ({"x": drawn(60, 1)[0], "y": np.full(60, "purple")}, "unknown classes", "purple"),
        ({"x": drawn(60, 1)[0].astype(np.float32)}, "schema", r"float32\[60, 4, 4, 1\]"),
        ({"x": drawn(60, 1)[0][:, :3]}, "schema", r"uint8\[60, 3, 4, 1\]"),
        ({"x": drawn(60, 1)[0], "y": np.arange(60)}, "schema", r"0\.\.59"),
        ({"x": drawn(60, 1)[0], "y": np.zeros(59, int)}, "schema", r"int64\[59\]"),
        ({"x": drawn(60, 1)[0], "z": np.zeros(3)}, "schema", "x, z"),
        ({"x": np.zeros((6000, 4, 4, 1), np.uint8)}, "size", "6,000 samples"),
        ({"x": np.array([{}] * 60, object)}, "unreadable", "Python objects"),
        ({"x": drawn(60, 1)[0], "y": np.array(["dark"] * 60, object)}, "unreadable", "Python objects"),
    ],
)  # fmt: skip
def test_a_bad_window_is_set_aside_with_a_reason(yard: Yard, arrays: Any, check: str, found: str) -> None:
    yard.put("bad.npz", **arrays)
    (arrived,) = yard.take().arrived
    assert arrived.folder == yard.windows / "aside" / "bad"
    assert check in checks(yard, "bad")
    assert re.search(found, next(each.found for each in arrived.reasons if each.check == check))
    assert all(each.expected and each.next_step for each in arrived.reasons)
    assert not shelf.folders(yard.windows)
    assert [path.name for path in yard.drop.iterdir()] == [".taken"]


@pytest.mark.parametrize("name", ["read.me", "link.npz"])
def test_what_is_no_entry_is_set_aside(yard: Yard, name: str) -> None:
    yard.drop.mkdir()
    if name == "link.npz":
        (yard.drop / name).symlink_to("/etc/hostname")
    else:
        (yard.drop / name).write_text("hello")
    (arrived,) = yard.take().arrived
    assert arrived.reasons[0].check == "schema"


@settings(max_examples=8)
@given(cut=st.integers(0, 4000), flip=st.integers(0, 4000), bit=st.integers(1, 255))
def test_a_damaged_file_never_stops_the_intake(
    tmp_path_factory: pytest.TempPathFactory, base: Path, cut: int, flip: int, bit: int
) -> None:
    yard = Yard(tmp_path_factory.mktemp("yard"), base)
    x, y = drawn(60, 1)
    entry = yard.put("bad.npz", x=x, y=y)
    content = bytearray(entry.read_bytes())
    content[flip % len(content)] ^= bit
    entry.write_bytes(content[: len(content) - cut % len(content)] if cut % 2 else content)
    assert len(yard.take().arrived) == 1
    shutil.rmtree(yard.place)


def test_new_classes_stand_behind_the_known_ones_when_somebody_asked_for_them(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("new.npz", x=x, y=np.where(y == 2, "purple", np.array(CLASSES)[y]))
    (arrived,) = yard.take(requested=("purple",), teacher=None).arrived
    assert not arrived.reasons
    window = read_window(arrived.folder)
    assert window.about.classes == (*CLASSES, "purple")
    assert (window.y == np.where(y == 2, 3, y)).all()


def test_a_person_can_release_what_was_set_aside_and_that_stays_written(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("flipped.npz", x=x, y=2 - y)
    yard.take()
    assert checks(yard, "flipped")[0] == "poison"
    assert "limbeck windows release flipped" in why(yard, "flipped").reasons[0].next_step
    folder = shelf.release(yard.windows, "flipped", by="ada")
    assert shelf.release(yard.windows, "flipped", by="ada") == folder == yard.windows / "flipped"
    assert read_window(folder).about.notes[0].startswith("released by ada in spite of: poison:")
    assert not (yard.windows / "aside/flipped").exists()
    assert not (folder / "why.json").exists()


def test_nothing_can_be_released_of_what_could_not_be_read(yard: Yard) -> None:
    yard.put("bad.npz", x=np.zeros(3))
    yard.take()
    with pytest.raises(DataError, match=r"bad holds nothing to release: float64\[3\], expected x: uint8\[N, 4, 4, 1\]"):
        shelf.release(yard.windows, "bad", by="ada")
    with pytest.raises(DataError, match="no window 'bed' is set aside; did you mean 'bad'"):
        shelf.release(yard.windows, "bed", by="ada")


# labels that come late


@pytest.mark.parametrize("by", ["sample", "digest"])
def test_late_labels_make_a_window_that_replaces_the_older(yard: Yard, by: str) -> None:
    x, y = drawn(60, 1)
    yard.put("new.npz", x=x)
    yard.take()
    older = yard.windows / "new"
    before, called = tree(older), read_keys(older) if by == "sample" else digests(older)
    rows = "\n".join(f"{called[number]},{CLASSES[y[number]]}" for number in range(40))
    (yard.drop / "new.labels.csv").write_text(f"{by},class\n{rows}\n99999,dark\n")
    (arrived,) = yard.take().arrived
    window = read_window(arrived.folder)
    assert re.fullmatch(r"new-labels-[0-9a-f]{8}", arrived.name)
    assert window.about.replaces == read_about(older).digest
    assert window.is_by_people.tolist() == [True] * 40 + [False] * 20
    assert (window.y == y).all()
    assert window.about.notes == ("40 labels for new", "1 labels are of other samples")
    assert tree(older) == before
    assert shelf.current(yard.windows) == [arrived.folder]


def test_labels_that_come_later_still_add_to_the_newest_window(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("new.npz", x=x)
    for half in (range(30), range(30, 60)):
        rows = "\n".join(f"{number},{CLASSES[y[number]]}" for number in half)
        (yard.drop / "new.labels.csv").write_text(f"sample,class\n{rows}\n")
        newest = yard.take().arrived[-1].folder
    assert read_window(newest).is_by_people.all()
    assert shelf.current(yard.windows) == [newest]
    assert len(shelf.folders(yard.windows)) == 3


def test_late_labels_are_of_the_classes_that_are_known_now(yard: Yard, tmp_path: Path) -> None:
    """A class was learned since the window arrived, and one that was asked for then is still none."""
    x, y = drawn(60, 1)
    is_purple = (y == 0) & (np.arange(60) < 9)
    names = np.where(y == 1, "middle", np.where(is_purple, "purple", ""))
    before = Yard(yard.place, prepared(tmp_path / "before", CLASSES[:2]))
    before.put("new.npz", x=x, y=names)
    before.take(teacher=None, requested=("purple",))
    assert read_about(yard.windows / "new").classes == ("dark", "middle", "purple")
    rows = "\n".join(f"{number},light" for number in np.flatnonzero(y == 2))
    (yard.drop / "new.labels.csv").write_text(f"sample,class\n{rows}\n")
    (arrived,) = yard.take(requested=("purple",)).arrived
    assert not arrived.reasons
    window = read_window(arrived.folder)
    assert window.about.classes == ("dark", "middle", "light", "purple")
    assert (window.y == np.select([y == 2, y == 1, is_purple], [2, 1, 3], -1)).all()


def test_late_labels_that_contradict_the_teacher_are_set_aside(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("new.npz", x=x)
    rows = "\n".join(f"{number},{CLASSES[2 - y[number]]}" for number in range(60))
    (yard.drop / "new.labels.csv").write_text(f"sample,class\n{rows}\n")
    first, second = yard.take().arrived
    assert (first.reasons, second.reasons[0].check) == ((), "poison")
    assert shelf.current(yard.windows) == [first.folder]


@pytest.mark.parametrize(
    ("table", "check"),
    [
        ("sample,class\n0,dark\n", "no window"),
        ("name,kind\n0,dark\n", "schema"),
        ("sample,class\n0\n", "schema"),
        ("sample,class\n0,dark\n0,light\n", "schema"),
        ("\xff", "no window"),
    ],
)
def test_late_labels_that_fit_nothing_are_set_aside(yard: Yard, table: str, check: str) -> None:
    yard.drop.mkdir()
    (yard.drop / "absent.labels.csv").write_text(table if table != "\xff" else "digest,class\na,b\n")
    (arrived,) = yard.take().arrived
    assert arrived.reasons[0].check == check


def test_late_labels_wait_for_a_window_that_waits(yard: Yard) -> None:
    yard.put("new.npz", x=drawn(60, 1)[0])
    (yard.drop / "new.npz").rename(yard.drop / "new.npz.tmp")
    (yard.drop / "new.labels.csv").write_text("sample,class\n0,dark\n")
    assert "new.labels.csv" in yard.take().waiting


# reading a window


def test_a_window_that_was_changed_is_refused(yard: Yard) -> None:
    yard.put("new.npz", x=drawn(60, 1)[0])
    folder = yard.take().arrived[0].folder
    y = np.load(folder / "y.npy")
    np.save(folder / "y.npy", 2 - y)
    with pytest.raises(DataError, match=r"y.npy has changed since it arrived: expected sha256 .* found"):
        read_window(folder)
    with pytest.raises(DataError, match="is no window: it has no window.json"):
        read_window(yard.drop)


def test_a_teacher_of_other_classes_is_refused(yard: Yard) -> None:
    yard.put("new.npz", x=drawn(60, 1)[0])
    with pytest.raises(DataError, match="answers for 2 classes; the prepared data have 3"):
        yard.take(teacher=Teacher(lambda x: np.zeros((len(x), 2), np.float32), "t"))
    assert (yard.drop / "new.npz").exists()


@pytest.mark.parametrize(
    ("entry", "name"),
    [("a b.npz", "a-b"), ("walk.tar.gz", "walk"), ("../x.zip", "x"), ("aside", "aside-"), ("...", "window"),
     ("20261121T194500Z-camera-3", "20261121T194500Z-camera-3"), ("c.labels.csv", "c")],
)  # fmt: skip
def test_names_are_made_safe(entry: str, name: str) -> None:
    assert name_of(Path(entry)) == name


def test_the_rules_example_is_one() -> None:
    text = "\n".join(line[8:] for line in str(WindowRules.__doc__).split("Attributes:")[0].splitlines()[2:])
    assert WindowRules.model_validate(yaml.safe_load(text)).min_samples == 50
    assert not [name for name, field in WindowRules.model_fields.items() if not field.is_required()]


def test_floats_far_from_the_training_range_are_dropped_and_counted(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    x = chance.normal(0, [1, 100], (200, 2)).astype(np.float32)
    part = in_memory(x, np.arange(200) % 2)
    splits.write(
        tmp_path / "data", Source("f", ("a", "b"), part), SplitParams(test=0.2, validation=0.2, calibration=0.1), 0
    )
    yard = Yard(tmp_path, tmp_path / "data")
    new = chance.normal(0, [1, 100], (100, 2)).astype(np.float32)
    new[0, 0], new[1, 1], new[2, 0], new[3, 1] = np.nan, np.inf, 50, 500_000
    new[4:, 0] = new[4:, 0].clip(-3, 3)
    yard.put("few.npz", x=new)
    yard.put("units.npz", x=1000 * chance.normal(0, [1, 100], (100, 2)).astype(np.float32))
    few, units = yard.take(teacher=None).arrived
    counts = read_about(few.folder).counts
    assert (counts.not_finite, counts.out_of_range, counts.kept) == (2, 2, 96)
    assert units.reasons[0].check == "unusable"
    assert json.loads((units.folder / "why.json").read_text())["name"] == "units"

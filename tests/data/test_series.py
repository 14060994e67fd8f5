"""Windows over recordings: csv, npz, and what a package embeds; and splits that keep recordings whole."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import splits
from limbeck.data.sources.recordings import Recording, part_of
from limbeck.data.sources.series import series
from limbeck.data.sources.source import Broken, Part, Source, in_memory
from limbeck.data.sources.watch import MEMBER, watch
from limbeck.errors import DataError
from limbeck.params import SplitParams
from tests.data.test_sources import KINDS, stored

SHARES = SplitParams(test=0.3, validation=0.2, calibration=0.1)


def table(num: int, start: float = 0.0, header: str = "ax,ay") -> str:
    """Steps (start, -start), (start + 1, ...), ..."""
    return "\n".join([header, *(f"{start + step},{-start - step}" for step in range(num))]) + "\n"


def folder(place: Path, files: dict[str, str]) -> str:
    return str(stored(place, {name: text.encode() for name, text in files.items()}))


def firsts(part: Part) -> list[Any]:
    """The first value of every window, or why there is none."""
    return [sample if isinstance(sample, Broken) else float(sample[0, 0]) for sample in part.samples()]


# windows


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 6), st.integers(1, 8))
def test_windows_start_every_hop_and_never_reach_over_the_end_of_a_recording(
    lengths: list[int], window: int, hop: int
) -> None:
    whole = [np.arange(length, dtype=np.float32)[:, None] + 100 * number for number, length in enumerate(lengths)]
    recordings = [Recording(str(number), number, number, length) for number, length in enumerate(lengths)]
    part = part_of(recordings, lambda: whole, window, hop)
    expected = [
        recording[start : start + window]
        for recording in whole
        for start in range(0, max(1, len(recording) - window + 1), hop)
    ]
    found = list(part.samples())
    assert len(found) == len(expected) == len(part.labels)
    for sample, values in zip(found, expected, strict=True):
        if len(values) < window:
            assert isinstance(sample, Broken)
            assert f"{len(values)} steps, fewer than a window of {window}" in sample.reason
        else:
            assert not isinstance(sample, Broken)
            assert np.array_equal(sample, values)
    assert part.groups is not None
    assert part.groups.tolist() == part.labels.tolist() == [int(values.max(initial=0)) // 100 for values in expected]


# csv


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_a_recording_with_the_label_of_its_folder(tmp_path: Path, kind: str) -> None:
    files = {f"pets/{label}/{i}.csv": table(5, 10 * i) for label in ("shake", "tilt") for i in (1, 2)}
    source = series(path=folder(tmp_path / kind, files), window=3, hop=2)
    assert (source.name, source.classes, source.test) == ("pets", ("shake", "tilt"), None)
    assert source.train.labels.tolist() == [0] * 4 + [1] * 4
    assert source.train.groups is not None
    assert source.train.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    windows = list(source.train.samples())
    assert {(each.shape, str(each.dtype)) for each in windows if not isinstance(each, Broken)} == {((3, 2), "float32")}
    assert firsts(source.train) == [10, 12, 20, 22] * 2 == firsts(source.train), "a second pass gives the same"


def test_folders_called_train_and_test_are_the_splits(tmp_path: Path) -> None:
    files = {f"{which}/{label}/1.csv": table(4) for which in ("train", "test") for label in ("shake", "tilt")}
    source = series(path=folder(tmp_path / "own", files), window=2, hop=2)
    assert source.test is not None
    assert len(source.train.labels) == len(source.test.labels) == 4
    labelled = {name.replace("shake/1", "a").replace("tilt/1", "b"): "label,v\nup,1\nup,2\n" for name in files}
    again = series(path=folder(tmp_path / "labelled", labelled), window=2, hop=2, label="label")
    assert again.test is not None
    assert len(again.train.labels) == len(again.test.labels) == 2
    with pytest.raises(DataError, match="has files in other, train and elsewhere"):
        series(path=folder(tmp_path / "half", {"train/a/1.csv": table(4), "other/a/1.csv": table(4)}), window=2, hop=2)


def test_a_column_may_name_the_class_and_another_what_stays_together(tmp_path: Path) -> None:
    """A change of either begins another recording; steps without a label belong to none."""
    lines = ["t,v,who,what"]
    for what, who, num in (("up", "ann", 3), ("", "ann", 2), ("up", "bob", 3), ("down", "bob", 4), ("up", "ann", 2)):
        lines += [f"{len(lines) + step},{len(lines) + step},{who},{what}" for step in range(num)]
    (tmp_path / "day.csv").write_text("\n".join(lines))
    source = series(path=str(tmp_path / "day.csv"), window=2, hop=1, channels=["v"], label="what", group="who")
    assert source.classes == ("down", "up")
    assert source.train.labels.tolist() == [1, 1, 1, 1, 0, 0, 0, 1]
    assert source.train.groups is not None
    assert source.train.groups.tolist() == [0, 0, 1, 1, 1, 1, 1, 0]
    assert firsts(source.train) == [1, 2, 6, 7, 9, 10, 11, 13]


def test_channels_are_fed_in_the_order_that_is_asked_for_whatever_the_files_order(tmp_path: Path) -> None:
    files = {"a/1.csv": "x,y,z\n1,2,3\n", "a/2.csv": "z,y,x\n3,2,1\n"}
    source = series(path=folder(tmp_path / "s", files), window=1, hop=1, channels=["z", "x"])
    assert [np.asarray(each).tolist() for each in source.train.samples()] == [[[3, 1]], [[3, 1]]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nan,1", "line 4, channel ax: nan is no finite number"),
        ("1,1e300", "line 4, channel ay: 1e+300 is no finite number"),
        ("1,off", "line 4, channel ay: 'off' is no number"),
        (",1", "line 4, channel ax: an empty cell is no number"),
        ("1", "line 4: 1 cells, the header names 2"),
        ("1,2,3", "line 4: 3 cells, the header names 2"),
    ],
)
def test_a_window_with_a_line_that_cannot_be_read_says_which_and_keeps_its_place(
    tmp_path: Path, line: str, reason: str
) -> None:
    lines = table(6).splitlines()
    lines[3] = line
    source = series(path=folder(tmp_path / "s", {"a/1.csv": "\n".join(lines)}), window=2, hop=2)
    one, broken, *_ = firsts(source.train)
    assert (
        (one, broken) == (0.0, Broken("a/1.csv, lines 2 to 7", reason)) if "2" in line else isinstance(broken, Broken)
    )
    assert isinstance(broken, Broken)
    assert broken.reason == reason


@pytest.mark.parametrize(
    ("files", "keywords", "message"),
    [
        ({"a/1.txt": ""}, {}, "holds no .csv"),
        ({"1.csv": table(2)}, {}, "1.csv lies in no class folder; give data.source.label a column"),
        ({"a/1.csv": table(2)}, {"channels": ["az"]}, "a/1.csv has no column 'az'; did you mean 'ay'"),
        ({"a/1.csv": table(2), "b/1.csv": "ax\n1\n"}, {}, "b/1.csv has no column 'ay'"),
        ({"a/1.csv": table(2)}, {"label": "what"}, "a/1.csv has no column 'what'"),
        ({"a/1.csv": "1,2\n3,4\n"}, {}, "expected a header that names the columns"),
        ({"a/1.csv": ""}, {}, "expected a header that names the columns"),
        ({"a/1.csv": "x,x\n3,4\n"}, {}, "has x twice in its header"),
        ({"a/1.csv": "what\nup\n"}, {"label": "what"}, "has no column beside what; expected channels"),
        ({"a/1.csv": "what,v\n,1\n"}, {"label": "what"}, "holds no row with a label"),
        ({"a/1.csv": "x\n1\n\ufffd".replace("\ufffd", "\x00")}, {"window": 1}, None),
    ],
)
def test_what_is_no_series_is_refused(
    tmp_path: Path, files: dict[str, str], keywords: dict[str, Any], message: str | None
) -> None:
    place = folder(tmp_path / "s", files)
    if message is not None:
        with pytest.raises(DataError, match=message.replace("(", r"\(")):
            series(**{"path": place, "window": 2, "hop": 1, **keywords})


def test_text_of_another_encoding_is_said(tmp_path: Path) -> None:
    place = stored(tmp_path / "s", {"a/1.csv": "größe\n1\n".encode("latin-1")})
    with pytest.raises(DataError, match="a/1.csv is no csv of UTF-8 text behind line 0"):
        series(path=str(place), window=1, hop=1)


def test_a_single_table_needs_a_label_column(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(table(3))
    with pytest.raises(DataError, match=r"1.csv is a single table; give data.source.label the column"):
        series(path=str(tmp_path / "1.csv"), window=1, hop=1)


# npz


@pytest.mark.parametrize("is_long", [False, True])
def test_arrays_hold_recordings_of_equal_length_or_all_steps_after_one_another(tmp_path: Path, is_long: bool) -> None:
    x = np.arange(24).reshape(3, 4, 2)
    told = {"y": [0, 1, 1], "group": ["ann", "bob", "ann"], "classes": ["up", "down"], "channels": ["ax", "ay"]}
    stored_x = {"x": x.reshape(12, 2), "lengths": [4, 4, 4]} if is_long else {"x": x}
    np.savez(tmp_path / "s.npz", **stored_x, **told)
    source = series(path=str(tmp_path / "s.npz"), window=2, hop=2)
    assert source.classes == ("up", "down")
    assert source.train.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert source.train.groups is not None
    assert source.train.groups.tolist() == [0, 0, 1, 1, 0, 0]
    assert firsts(source.train) == [0, 4, 8, 12, 16, 20]


def test_arrays_may_bring_a_test_split_and_say_where_a_number_is_missing(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 2), np.float32)
    x[1, 2, 1] = np.nan
    np.savez(tmp_path / "s.npz", x=x, y=[0, 1], x_test=x[:1], y_test=[0])
    source = series(path=str(tmp_path / "s.npz"), window=4, hop=4, on_error="skip")
    assert source.test is not None
    assert len(source.test.labels) == 1
    assert source.on_error == "skip"
    assert firsts(source.train)[1] == Broken("s.npz, recording 1", "step 2, channel 1: nan is no finite number")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": np.zeros((2, 3, 1))}, "holds x. Expected"),
        ({"x": np.zeros(3), "y": [0]}, r"x is float64\[3\]"),
        ({"x": np.array([[["a"]]]), "y": [0]}, "x is <U1"),
        ({"x": np.zeros((2, 3, 1)), "y": [0]}, r"y is int64\[1\]; expected integers \[2\]"),
        ({"x": np.zeros((2, 3, 1)), "y": [0.5, 1]}, "y is float64"),
        ({"x": np.zeros((4, 1)), "y": [0, 1]}, "has x without lengths"),
        ({"x": np.zeros((4, 1)), "y": [0, 1], "lengths": [2, 3]}, "lengths add up to 5, x has 4 steps"),
        ({"x": np.zeros((2, 3, 1)), "y": [0, 1], "group": [1]}, "expected one for each y, 2"),
        ({"x": np.zeros((2, 3, 1)), "y": [0, 1], "channels": ["a", "b"]}, "channels names 2, x has 1"),
    ],
)
def test_arrays_that_are_no_series_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "s.npz", **values)
    with pytest.raises(DataError, match=message):
        series(path=str(tmp_path / "s.npz"), window=1, hop=1)


# what a package embeds


def wheel(place: Path, content: Any) -> str:
    """A wheel with such an object in the place of its data; its sha256."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    boxed = np.empty((), object)
    boxed[()] = content
    old = pickle.dumps(boxed, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    stream.write(old)
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr(MEMBER, stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()


def test_exercises_under_a_watch_are_grouped_by_person_or_recording(tmp_path: Path) -> None:
    place = tmp_path / "seglearn.whl"
    told = {"X": np.array([np.full((4, 2), n, np.float64) for n in range(3)]), "y": np.array([0, 1, 1]),
            "subject": np.array([7, 7, 9]), "X_labels": ["ax", "ay"], "y_labels": ["PEN", "ABD"]}  # fmt: skip
    digest = wheel(place, told)
    source = watch(path=str(place), window=2, hop=2, sha256=digest)
    assert source.classes == ("PEN", "ABD")
    assert source.train.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert source.train.groups is not None
    assert source.train.groups.tolist() == [7, 7, 7, 7, 9, 9]
    assert firsts(source.train) == [0, 0, 1, 1, 2, 2]
    by_recording = watch(path=str(place), window=2, hop=2, sha256=digest, group="recording").train
    assert by_recording.groups is not None
    assert by_recording.groups.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="does not hold the data expected"):
        watch(path=str(place), window=2, hop=2)


def test_a_wheel_that_is_absent_or_none_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_bytes(b"no wheel")
    for name in ("bad.whl", "absent.whl"):
        with pytest.raises(DataError, match=r"pip download --no-deps seglearn==1.2.5"):
            watch(path=str(tmp_path / name), window=2, hop=2)


# splits of whole groups


@given(st.integers(0, 2**31 - 1), st.integers(8, 20), st.integers(1, 9))
def test_a_group_stands_in_one_split_and_shares_are_nearly_met(seed: int, num_groups: int, size: int) -> None:
    groups = np.repeat(np.arange(num_groups) * 7, size * 3)
    y = np.tile(np.arange(3), num_groups * size)
    parts = splits.divide_groups(y, groups, ("a", "b", "c"), SHARES, seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(y)))
    owners = [set(groups[indices].tolist()) for indices in parts.values()]
    assert sum(map(len, owners)) == num_groups
    for name, share in {"train": 0.4, "test": 0.3, "validation": 0.2, "calibration": 0.1}.items():
        assert abs(len(set(groups[parts[name]].tolist())) - share * num_groups) <= 1, name  # type: ignore[index]


def test_groups_of_one_class_are_dealt_class_by_class() -> None:
    y = np.repeat(np.arange(2), 50)
    parts = splits.divide_groups(y, np.arange(100) // 5, ("a", "b"), SHARES, seed=0)
    assert {name: np.bincount(y[indices]).tolist() for name, indices in parts.items()} == {
        "train": [20, 20], "validation": [10, 10], "calibration": [5, 5], "test": [15, 15],
    }  # fmt: skip


def grouped(labels: list[int], groups: list[int]) -> Part:
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    part = in_memory(x, np.array(labels))
    return Part(part.labels, part.samples, groups=np.array(groups))


def test_recordings_stay_whole_in_what_is_written_and_a_class_of_too_few_is_refused(tmp_path: Path) -> None:
    labels, groups = [0, 0, 1, 1] * 10, np.repeat(np.arange(10), 4).tolist()
    meta = splits.write(tmp_path / "data", Source("s", ("a", "b"), grouped(labels, groups)), SHARES, seed=1)
    assert meta.counts == {"train": 16, "validation": 8, "calibration": 4, "test": 12}
    held = [set((splits.read(tmp_path / "data", name)[0][:, 0] // 4).tolist()) for name in splits.NAMES]  # type: ignore[operator]
    assert sum(map(len, held)) == len(set.union(*held)) == 10
    one = Source("s", ("a", "b"), grouped([0] * 40 + [1] * 4, [*groups, 10, 10, 11, 11]))
    with pytest.raises(DataError, match=r"class b has 2 groups \(recordings, people\), none of which is left for"):
        splits.write(tmp_path / "few", one, SHARES, seed=1)


def test_a_group_on_both_sides_of_a_sources_own_test_split_is_refused(tmp_path: Path) -> None:
    source = Source("s", ("a",), grouped([0] * 6, [0, 1, 2, 3, 4, 5]), grouped([0], [5]))
    with pytest.raises(DataError, match="has 1 groups .recordings, people. in train and in its own test split"):
        splits.write(tmp_path, source, SHARES.model_copy(update={"test": None}), seed=0)

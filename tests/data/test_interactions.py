"""Tables of interactions become histories and the items that came next."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.data.sources.interactions import interactions
from limbeck.data.sources.shop import shop
from limbeck.data.sources.source import Part, Source
from limbeck.errors import DataError
from limbeck.params import SplitParams

SHARES = SplitParams(test=None, validation=None, calibration=0.2)
LINES = [
    "ann,tea,1", "ann,bread,2", "ann,milk,3", "ann,tea,4", "ann,jam,5",
    "bob,milk,10", "bob,jam,20", "bob,tea,30",
]  # fmt: skip


def table(place: Path, lines: list[str], head: str = "user,item,time") -> str:
    content = "\n".join([head, *lines]) + "\n"
    place.write_bytes(gzip.compress(content.encode()) if place.suffix == ".gz" else content.encode())
    return str(place)


def told(source: Source, part: Part | None) -> list[tuple[list[str], str]]:
    assert part is not None
    return [
        ([source.classes[code - 1] for code in codes if code], source.classes[label])
        for codes, label in zip(part.samples(), part.labels, strict=True)
    ]


@pytest.mark.parametrize("name", ["taken.csv", "taken.csv.gz"])
def test_the_last_interaction_is_test_the_one_before_validation_and_the_rest_trains(tmp_path: Path, name: str) -> None:
    source = interactions(path=table(tmp_path / name, LINES), length=3)
    assert source.classes == ("bread", "jam", "milk", "tea")
    assert told(source, source.test) == [(["bread", "milk", "tea"], "jam"), (["milk", "jam"], "tea")]
    kept = told(source, source.train)
    assert source.train.assigned is not None
    validation = [sample for sample, owner in zip(kept, source.train.assigned, strict=True) if owner >= 0]
    assert validation == [(["tea", "bread", "milk"], "tea"), (["milk"], "jam")]
    rest = [sample for sample in kept if sample not in validation]
    assert rest == [([], "tea"), (["tea"], "bread"), (["tea", "bread"], "milk"), ([], "milk")]


def test_codes_begin_at_one_and_padding_stands_in_front(tmp_path: Path) -> None:
    source = interactions(path=table(tmp_path / "taken.csv", LINES), length=4)
    (_, second) = list(source.test.samples()) if source.test else ([], [])
    assert second.dtype == np.int32
    assert second.tolist() == [0, 0, 3, 2]


@given(st.permutations([*LINES, "cid,tea,1", "cid,jam,1", "cid,milk,1", "cid,bread,1"]))
def test_the_order_of_lines_says_nothing(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    place = tmp_path_factory.mktemp("lines") / "taken.csv"
    source = interactions(path=table(place, lines), length=4)
    again = interactions(path=table(place, sorted(lines)), length=4)
    assert told(source, source.train) == told(again, again.train)
    assert told(source, source.test) == told(again, again.test)


def test_what_one_user_did_at_one_time_is_in_no_order_that_other_users_share(tmp_path: Path) -> None:
    lines = [f"{user},{item},7" for user in range(60) for item in ("a", "b", "c", "d")]
    source = interactions(path=table(tmp_path / "taken.csv", lines), length=4)
    assert len({label for _, label in told(source, source.test)}) == 4


def test_doubled_lines_count_once_and_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = interactions(path=table(tmp_path / "taken.csv", [*LINES, *LINES[:3]]), length=3)
    once = interactions(path=table(tmp_path / "taken.csv", LINES), length=3)
    assert told(source, source.train) == told(once, once.train)
    assert "3 doubled lines" in capsys.readouterr().out


def test_first_counts_a_user_s_first_interaction_with_an_item_alone(tmp_path: Path) -> None:
    source = interactions(path=table(tmp_path / "taken.csv", LINES), length=4, repeats="first")
    assert told(source, source.test)[0] == (["tea", "bread", "milk"], "jam")


def test_users_with_too_few_interactions_and_rare_items_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*LINES, "cid,tea,1", "cid,salt,2", "cid,milk,3"]
    source = interactions(path=table(tmp_path / "taken.csv", lines), length=4, min_per_item=2)
    assert source.classes == ("jam", "milk", "tea")
    assert source.test is not None
    assert len(source.test.labels) == 2, "cid has two interactions left"
    assert "1 of 3 users" in capsys.readouterr().out


def test_only_so_many_of_a_user_s_newest_samples_train(tmp_path: Path) -> None:
    source = interactions(path=table(tmp_path / "taken.csv", LINES), length=4, max_per_user=1)
    assert [label for _, label in told(source, source.train)] == ["milk", "tea", "milk", "jam"]


@pytest.mark.parametrize(
    ("lines", "head", "message"),
    [
        (LINES, "user,item,when", "has no column time; it has user, item, when. Name its columns in data.source"),
        ([*LINES, "bob,tea,soon"], "user,item,time", "line 10: time is 'soon'; expected a number, or a date as"),
        ([*LINES, "bob,tea,nan"], "user,item,time", "line 10: time is 'nan'; expected a number"),
        ([*LINES, "bob,tea"], "user,item,time", "line 10: 2 values, expected 3"),
        ([*LINES, ",tea,3"], "user,item,time", "line 10: no user; expected a name"),
        ([*LINES, "bob,,3"], "user,item,time", "line 10: no item; expected a name"),
        ([], "user,item,time", "holds no interaction"),
        (LINES[:2], "user,item,time", "0 users and 0 items are left, of 1 and 2, where an item needs 1 .* Lower"),
    ],
)
def test_a_bad_table_is_refused_in_clear_words(tmp_path: Path, lines: list[str], head: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        interactions(path=table(tmp_path / "taken.csv", lines, head), length=4)


def test_a_table_that_is_no_text_or_cut_short_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(["user,item,time", *LINES * 50]).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-20])
    (tmp_path / "latin.csv").write_bytes("user,item,time\nann,th\xe9,1\n".encode("latin-1"))
    for name in ("cut.csv.gz", "latin.csv"):
        with pytest.raises(DataError, match="cannot be read: .* Get or save it again"):
            interactions(path=str(tmp_path / name), length=4)
    with pytest.raises(DataError, match="is missing"):
        interactions(path=str(tmp_path / "none.csv"), length=4)


def test_dates_are_times(tmp_path: Path) -> None:
    lines = [f"ann,{item},2026-11-0{day}T10:00:00" for item, day in (("tea", 3), ("jam", 1), ("milk", 2))]
    source = interactions(path=table(tmp_path / "taken.csv", lines), length=4)
    assert told(source, source.test) == [(["jam", "milk"], "tea")]


def made(**changed: Any) -> Source:
    return open_source(Component.model_validate({"use": "shop", "users": 60, "items": 50, "length": 6, **changed}))


def test_prepared_splits_are_the_users_last_ones_and_calibration_is_of_train(tmp_path: Path) -> None:
    meta = splits.write(tmp_path, made(), SHARES, 0, max_overlap=1.0)
    assert (meta.shape, meta.dtype, meta.mean) == ((6,), "int32", ())
    assert meta.counts["test"] == meta.counts["validation"] == 60
    source = made()
    rest = len(source.train.labels) - 60
    assert meta.counts["train"] + meta.counts["calibration"] == rest
    assert abs(meta.counts["calibration"] - 0.2 * rest) <= 2
    assert meta.digest == splits.write(tmp_path / "again", made(), SHARES, 0, max_overlap=1.0).digest


def test_a_made_shop_is_a_function_of_its_seed() -> None:
    first, again, other = made(), made(), made(seed=1)
    assert np.array_equal(list(first.train.samples()), list(again.train.samples()))
    assert len(first.train.labels) != len(other.train.labels) or not np.array_equal(
        first.train.labels, other.train.labels
    )


def test_a_source_without_a_validation_split_of_its_own_needs_a_share(tmp_path: Path) -> None:
    digits = open_source(Component(use="digits"))
    with pytest.raises(DataError, match=r"brings no validation split of its own; give data.split.validation a share"):
        splits.write(tmp_path, digits, SplitParams(test=0.2, validation=None, calibration=0.1), 0)


def test_memory_holds_no_sample() -> None:
    source = shop(users=50, items=40, length=5)
    samples = source.train.samples()
    assert next(samples).base is None, "each sample is made when it is asked for"

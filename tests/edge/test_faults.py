"""The fault drill: what it is made of, and a slice of it."""

import random
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.faults.drill import plan
from benchmarks.faults.kinds import KINDS, role_of, slow
from benchmarks.faults.proxy import flipped, start_of
from limbeck.edge.home import STEPS


def test_twenty_seeds_of_every_kind_are_a_thousand_faults() -> None:
    assert len(KINDS) * faults.NUM_SEEDS >= 1000
    assert len(set(plan(faults.NUM_SEEDS, can_mount=True))) == len(KINDS) * faults.NUM_SEEDS


def test_there_is_a_kill_between_every_two_named_steps() -> None:
    for step, following in zip(STEPS, (*STEPS[1:], "the end"), strict=True):
        assert f"killed: {step} to {following}" in KINDS


def test_without_the_right_to_mount_what_needs_it_is_left_out() -> None:
    assert {name for name, _ in plan(1, can_mount=False)} == set(KINDS) - {"disk full", "read-only folder"}


def test_a_kind_and_a_seed_draw_the_same_every_time() -> None:
    assert slow(random.Random("slow 3")) == slow(random.Random("slow 3")) != slow(random.Random("slow 4"))


def test_a_flipped_bit_is_one_bit() -> None:
    assert flipped(b"\x00\x00\x00\x00", 0.5, 11) == b"\x00\x00\x08\x00"


@pytest.mark.parametrize(("wanted", "start"), [(None, 0), ("bytes=700-", 700), ("bytes=0-1", 0)])
def test_a_range_is_where_it_starts(wanted: str | None, start: int) -> None:
    assert start_of(wanted) == start


def test_metadata_are_known_by_their_names() -> None:
    names = ("timestamp.json", "12.targets.json", "2.root.json", "manifest.json", "model.fp32.onnx")
    assert [role_of(name) for name in names] == ["timestamp", "targets", "root", None, None]


def test_a_summary_counts_by_kind_what_was_survived_and_said() -> None:
    lines = [
        {"kind": "401", "seed": seed, "said": f"http://127.0.0.1:4{seed}/a/b.json answers 401", "wrong": wrong}
        for seed, wrong in enumerate(([], [], ["no answer for 9.0 s"]))
    ]
    found = faults.summary(lines)
    assert (found["faults"], found["ratios"]) == (3, {"survived": 2 / 3})
    assert found["kinds"]["401"] == {
        "faults": 3, "survived": 2, "said": {"b.json answers 401": 3}, "longest_gap_s": 0.0,
    }  # fmt: skip
    assert faults.table(found).splitlines()[-1] == "| 401 | 3 | 2 | b.json answers 401 |"
    assert found["not_survived"] == lines[2:]


def test_a_journal_that_a_kill_cut_short_gives_its_whole_lines(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text('{"kind": "401"}\n{"kind": "4')
    assert faults.read(tmp_path / "journal") == [{"kind": "401"}]
    assert faults.read(tmp_path / "none") == []


@pytest.mark.slow
def test_one_fault_of_every_kind_is_survived(tmp_path: Path) -> None:
    faults.play(tmp_path / "journal.jsonl", 1, tmp_path, patience=3)  # beside other tests
    found = faults.summary(faults.read(tmp_path / "journal.jsonl"))
    assert not found["not_survived"]
    assert set(found["not_possible_here"]) <= {name for name, kind in KINDS.items() if kind.needs_mounts}
    assert found["faults"] == len(KINDS) - len(found["not_possible_here"])

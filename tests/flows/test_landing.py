"""What counts as landed data, and that it is announced once, by whichever process looks."""

import os
from pathlib import Path

import pytest

from flows.services.landing import Drop, Landed

QUIET_S = 10.0


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


def names(found: list[Landed]) -> list[str]:
    return [landed.name for landed in found]


def test_an_entry_has_landed_when_nothing_in_it_changed_for_the_quiet_time(drop: Path) -> None:
    watched = Drop(drop.parent, QUIET_S)
    (drop / "night").mkdir()
    assert watched.look(0) == watched.look(20) == [], "a folder without files is only begun"
    (drop / "night/a.png").write_bytes(b"1")
    assert watched.look(30) == []
    (drop / "night/b.png").write_bytes(b"2")
    assert watched.look(45) == [], "still growing"
    assert watched.look(54.9) == []
    assert names(watched.look(55)) == ["night"]


def test_an_entry_is_offered_until_somebody_was_told_and_never_after(drop: Path) -> None:
    (drop / "x.npz").write_bytes(b"1")
    watched = Drop(drop.parent, 0)
    watched.look(0)
    (first,), (second,) = watched.look(1), watched.look(2)
    assert first.id == second.id
    watched.announced(first)
    assert watched.look(3) == []
    later = Drop(drop.parent, 0)
    assert later.look(0) == later.look(1) == [], "another process knows it too"


def test_what_landed_while_nobody_watched_is_noticed(drop: Path) -> None:
    (drop / "old").write_bytes(b"1")
    os.utime(drop / "old", (0, 0))
    watched = Drop(drop.parent, QUIET_S)
    watched.look(0)
    assert names(watched.look(QUIET_S)) == ["old"]


def test_another_entry_of_the_same_name_lands_again(drop: Path) -> None:
    (drop / "today").write_bytes(b"1")
    watched = Drop(drop.parent, 0)
    watched.look(0)
    (first,) = watched.look(1)
    watched.announced(first)
    (drop / "today").unlink()
    watched.look(2)
    (drop / "today").write_bytes(b"22")
    watched.look(3)
    (second,) = watched.look(4)
    assert second.id != first.id


def test_hidden_and_partial_names_wait_for_their_rename(drop: Path) -> None:
    for name in (".x", "x.partial"):
        (drop / name).write_bytes(b"1")
    watched = Drop(drop.parent, 0)
    assert watched.look(0) == watched.look(1) == []
    (drop / "x.partial").rename(drop / "x")
    watched.look(2)
    assert names(watched.look(3)) == ["x"]


def test_a_folder_that_cannot_be_read_for_a_while_forgets_nothing(drop: Path) -> None:
    (drop / "x").write_bytes(b"1")
    watched = Drop(drop.parent, 0)
    watched.look(0)
    watched.announced(watched.look(1)[0])
    drop.rename(drop.parent / "away")
    assert watched.look(2) == []
    (drop.parent / "away").rename(drop)
    assert watched.look(3) == watched.look(4) == []


def test_a_damaged_memory_is_one_announcement_too_many_and_no_error(drop: Path) -> None:
    (drop / "x").write_bytes(b"1")
    (drop.parent / ".limbeck").mkdir()
    (drop.parent / ".limbeck/landed.json").write_text("{")
    watched = Drop(drop.parent, 0)
    watched.look(0)
    assert names(watched.look(1)) == ["x"]

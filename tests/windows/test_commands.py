"""`limbeck windows list|show|release`."""

import csv
import io
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck import cli
from limbeck.errors import DataError
from tests.windows.conftest import Yard, drawn


@pytest.fixture
def place(yard: Yard) -> Path:
    """One window, and one that was set aside."""
    x, y = drawn(60, 1)
    yard.put("good.npz", x=x)
    yard.put("bad.npz", x=drawn(60, 2)[0], y=2 - y)
    yard.take()
    return yard.place


def limbeck(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli.app, ["windows", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_list_has_windows_and_those_set_aside(place: Path) -> None:
    shown = limbeck("list", "--workspace", place)
    assert "good" in shown
    assert "teacher" in shown
    assert "aside: poison" in shown


def test_a_window_is_shown_with_its_reasons_and_its_samples(place: Path) -> None:
    assert '"labelled_by": "teacher"' in limbeck("show", "good", "--workspace", place)
    assert "bad is set aside:\n  poison: found 40 of 60 all labelled" in limbeck("show", "bad", "--workspace", place)
    rows = list(csv.DictReader(io.StringIO(limbeck("show", "good", "--samples", "--workspace", place))))
    assert len(rows) == 60
    assert rows[0].keys() == {"sample", "digest", "class", "confidence"}
    assert (rows[0]["class"], rows[0]["sample"]) == ("dark", "0")


def test_a_released_window_counts(place: Path) -> None:
    assert "counts; `dvc add" in limbeck("release", "bad", "--by", "ada", "--workspace", place)
    assert "aside" not in limbeck("list", "--workspace", place)


def test_an_unknown_window_names_the_nearest(place: Path) -> None:
    with pytest.raises(DataError, match="no window 'goood'; did you mean 'good'"):
        limbeck("show", "goood", "--workspace", place)

from datetime import timedelta
from pathlib import Path

import pytest

from limbeck.errors import DataError
from limbeck.refresh.story import STORY, every, read
from limbeck.refresh.telling import line, page
from tests.refresh.stories import NOW, judged, story, tried


def test_a_story_comes_back_as_it_was_written(tmp_path: Path) -> None:
    told = story(tried("recalibrate", "refused"), tried("norms", "waiting"))
    (tmp_path / "0001").mkdir()
    told.write(tmp_path / "0001")
    assert read(tmp_path / "0001") == told
    assert every(tmp_path) == [told]


def test_a_torn_story_says_what_to_remove(tmp_path: Path) -> None:
    (tmp_path / STORY).write_text("{")
    with pytest.raises(DataError, match="remove .*, and the refresh begins anew"):
        read(tmp_path)


def test_only_rungs_that_ran_to_their_end_tell_what_the_next_will_cost() -> None:
    told = story(tried("recalibrate", "refused"), tried("norms", "failed"), tried("distil", "waiting"))
    assert [spent.rung for spent in told.spent()] == ["recalibrate"]


def test_a_page_says_what_moved_what_was_tried_and_what_became_of_it(tmp_path: Path) -> None:
    told = story(
        tried("recalibrate", "skipped", why="the student ships in float"), tried("norms", "refused"), tried("distil", "passed"),
        version="2", outcome="champion",
    )  # fmt: skip
    shown = page(told, tmp_path)
    text = shown.markdown()
    assert "input statistics moved. Version 2, by the rung distil, is the champion now." in text
    assert (
        "put at 90.0 % [80.0, 95.0]; people labelled 120 of them: 90.0 % [80.0, 95.0], so that estimate is off by +2.1 points"
        in text
    )
    assert "| **validation, new** | **120** | **50.0** | **75.0** | **+25.0 [+20.0, +30.0]** |" in text
    assert "recalibrate: skipped: the student ships in float" in text
    assert "norms: refused after 12 s: is refused on validation" in text
    assert "window noon, labelled by people" in text
    assert "<table>" in shown.html()


@pytest.mark.parametrize(
    ("outcome", "words"), [(None, "It goes on"), ("failed", "was not found"), ("refused", "was refused")]
)
def test_a_page_can_be_shown_at_any_time(tmp_path: Path, outcome: str | None, words: str) -> None:
    assert words in page(story(tried("norms", "waiting"), outcome=outcome), tmp_path).markdown()


def test_a_rung_that_waits_says_what_it_will_cost_and_from_what_that_is_known() -> None:
    assert line(tried("distil", "waiting")) == "distil: about 60 s (1 run of this rung)"


def test_one_that_ended_on_these_very_windows_is_not_tried_again_unless_a_rung_broke() -> None:
    same = ("1", {"d"}, "input statistics moved")
    refused = story(tried("norms", "refused"), outcome="failed")
    assert refused.has_answered(*same)
    assert not story(tried("norms", "waiting")).has_answered(*same), "it is not over"
    broke = story(tried("norms", "failed"), outcome="failed")
    assert not broke.has_answered(*same), "a full disk, say"
    assert broke.has_answered(*same, now=True)
    for other in (("2", *same[1:]), ("1", {"d", "e"}, same[2]), (*same[:2], "new classes truck")):
        assert not refused.has_answered(*other)


def test_a_rung_that_was_never_needed_was_not_tried(tmp_path: Path) -> None:
    told = story(tried("norms", "passed"), tried("distil", "waiting"), outcome="champion", version="2")
    assert "- distil: not tried" in page(told, tmp_path).markdown()


def test_one_window_is_all_that_is_new_and_two_have_a_row_each(tmp_path: Path) -> None:
    def rows(num: int) -> list[str]:
        verdict = judged(True)
        verdict.rows += [{**verdict.rows[0], "name": f"window {number}"} for number in range(1, num + 1)]
        return [row.cells[0] for row in page(story(tried("norms", "passed"), exam=verdict), tmp_path).rows]

    assert rows(1) == ["test, new"]
    assert rows(2) == ["test, new", "test, window 1", "test, window 2"]


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (("teacher",), "Nobody but the teacher labelled the new samples"),
        (("teacher", "none"), "Nobody but the teacher labelled the new samples"),
        (("people", "teacher"), "Some of the new samples were labelled by the teacher alone"),
        (("both",), "Some of the new samples were labelled by the teacher alone"),
        (("people",), ""),
    ],
)
def test_a_page_says_whose_right_is_meant(tmp_path: Path, by: tuple[str, ...], words: str) -> None:
    windows = [{"folder": f"windows/{name}", "digest": name, "labelled_by": name} for name in by]
    text = page(story(tried("norms", "refused"), windows=windows), tmp_path).markdown()
    assert words in text
    assert ("below means what" in text) == bool(words)


def test_a_day_counts_what_ended_on_it() -> None:
    each = tried("norms", "waiting")
    each.took(40.0, NOW)
    each.took(2.0, NOW + timedelta(days=1))
    assert (each.seconds, each.by_day) == (42.0, {"2026-01-02": 40.0, "2026-01-03": 2.0})

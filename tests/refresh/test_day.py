"""The scripted day, but for its living: tests/pipeline/test_day_slow.py lives it."""

import pytest
import yaml

from examples.day import life
from examples.day.telling import Part, page
from examples.day.world import KNOWN, NEW, World, world
from limbeck.params import checked
from tests.conftest import ROOT
from tests.refresh.stories import story, tried


@pytest.fixture(scope="module")
def day() -> World:
    return world()


def test_every_digit_has_one_place_in_the_day(day: World) -> None:
    assert sum(map(len, (day.base, day.morning, day.noon, day.evening, day.held_new))) == 1797
    base, morning = ({sample.tobytes() for sample in part.x} for part in (day.base, day.morning))
    assert not base & morning


def test_the_new_digit_comes_in_the_evening_alone(day: World) -> None:
    for part in (day.base, day.morning, day.noon):
        assert set(part.names) == set(KNOWN)
    assert set(day.evening.names) == {*KNOWN, NEW}
    assert set(day.held_new.names) == {NEW}
    enough = yaml.safe_load((ROOT / "examples/day/refresh.yaml").read_text())["requests"]["min_class_samples"]
    assert (day.evening.names == NEW).sum() >= enough


def test_its_params_are_whole() -> None:
    checked(yaml.safe_load((life.HERE / "params.yaml").read_text()), "examples/day")


def test_the_page_tells_each_part_what_was_tried_and_how_good_the_champion_is_on_what() -> None:
    repaired = story(tried("norms", "refused"), tried("distil", "passed"), version="2", outcome="champion")
    shown = page(
        [
            Part("morning", "220 digits landed", ["nothing moved"], None, None, 9.6, {"old": 0.95, "new": 0.0}),
            Part("noon", "it glares", ["confidence moved", "confidence: fell"], b"png", repaired, 70.2, {"old": 0.94, "new": 0.5}),
        ],
        {"old": 0.95, "new": 0.0},
        {"old": 1200, "new": 60},
    )  # fmt: skip
    text = shown.markdown()
    assert "Morning: 220 digits landed. Nothing moved: nothing was done." in text
    assert (
        "Noon: it glares. Confidence moved. After 24 s of rungs version 2, by the rung distil, is the champion; "
        "70 s since it landed." in text
    )
    assert "| old | 1,200 | 95.0 | 95.0 | 94.0 |" in text
    assert "- noon: norms: refused after 12 s: is refused on validation" in text
    assert shown.pictures == [("Noon: what moved", b"png")]

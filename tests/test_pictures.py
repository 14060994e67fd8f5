from pathlib import Path

import pytest
from PIL import Image

from limbeck import pictures


def point(**changed: object) -> pictures.Point:
    values = {
        "label": "phone pruned", "series": "phone", "variant": "model.fp32", "quality": 98.0, "low": 97.0,
        "high": 99.0, "kilobytes": 160.0, "milliseconds": 0.1, "ships": True,
    }  # fmt: skip
    return pictures.Point(**values | changed)  # type: ignore[arg-type]


def test_every_measured_file_has_its_place_in_both_panels_and_the_one_that_ships_says_so() -> None:
    figure = pictures.pareto([point(), point(label="teacher", series="", variant="teacher", ships=False)])
    for axes, x in zip(figure.axes, (160.0, 0.1), strict=True):
        first = axes.containers[0].lines[0]  # type: ignore[attr-defined]
        assert (first.get_xdata()[0], first.get_ydata()[0]) == (x, 98.0)
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["phone pruned (ships)", "teacher"]


def test_each_arm_of_each_training_is_a_line_over_its_epochs(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("arm,epoch,validation\nstudent,0,0.5\nstudent,1,0.7\ncontrol,0,0.4\n")
    (tmp_path / "t.csv").write_text("epoch,validation\n0,0.9\n1,\n")
    figure = pictures.training({"phone distill": tmp_path / "d.csv", "teacher": tmp_path / "t.csv"})
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines == {
        "phone distill student": pytest.approx([50, 70]),
        "phone distill control": pytest.approx([40]),
        "teacher": pytest.approx([90]),
    }


def test_a_confusion_counts_each_class_taken_for_each(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('actual,fp32\ncat,cat\ncat,"dog, wet"\n"dog, wet",cat\ncat,cat\n')
    figure = pictures.confusion(tmp_path / "c.csv", "fp32")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog, wet"]
    assert {(*text.get_position(), text.get_text()) for text in axes.texts} == {(0, 0, "2"), (1, 0, "1"), (0, 1, "1")}


def test_a_picture_has_equal_bytes_each_time(tmp_path: Path) -> None:
    one, two = (pictures.png(pictures.pareto([point()])) for _ in range(2))
    assert one == two
    (tmp_path / "p.png").write_bytes(one)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[0] > 500

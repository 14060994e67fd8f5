"""What devices tell of their use, held against what the champion's file says of its validation samples."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limbeck.data import splits
from limbeck.data.sources.windows import windows
from limbeck.data.splits import read, read_meta
from limbeck.params import SplitParams
from limbeck.refresh import hearing
from limbeck.refresh import rules as rules_file
from limbeck.refresh.hearing import NEXT, Heard
from tests.conftest import ROOT
from tests.publishing.fleet import asked
from tests.refresh.test_looking import window
from tests.tracking.conftest import write_export

RULES = rules_file.load(ROOT / "refresh.yaml")
Reports = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a champion that answers digits."""
    folder = tmp_path_factory.mktemp("export")
    write_export(folder, 1.0, classes=10, height=8, width=8)
    return folder / "model.int8.onnx"


def told(file: Path, x: NDArray[Any], devices: int = 4) -> Reports:
    """What devices report that were asked these samples, in two reports each."""
    shares = np.array_split(x, devices)
    halves = {f"{number:016x}": np.array_split(share, 2) for number, share in enumerate(shares)}
    return {device: [asked(file, half) for half in both] for device, both in halves.items()}


def heard(file: Path, data: Path, reports: Reports, rules: rules_file.Rules = RULES) -> Heard | None:
    return hearing.hear(reports, data, file, rules, now=datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture(scope="module")
def x(data: Path) -> NDArray[Any]:
    return np.asarray(read(data, "test")[0])


@pytest.fixture(scope="module")
def dark(file: Path, x: NDArray[Any]) -> Reports:
    """Of a fleet whose world is another one."""
    return told(file, 255 - x)


def test_of_a_world_that_is_known_nothing_is_said(file: Path, data: Path, x: NDArray[Any]) -> None:
    found = heard(file, data, told(file, x))
    assert found is not None
    assert (found.moved, found.lines("3"), found.picture()) == ([], [], None)


def test_what_moved_is_said_with_whose_word_it_is_and_what_a_person_can_do(
    file: Path, data: Path, x: NDArray[Any], dark: Reports
) -> None:
    found = heard(file, data, dark)
    assert found is not None
    first, *words, last = found.lines("3")
    assert first.startswith(
        f"what devices tell (4 of them, {len(x)} answers of version 3): input statistics, class prior"
    )
    assert first.endswith("moved: samples, student say so independently")
    assert [line.split(":")[1] for line in words] == [f" {name}" for name in found.moved]
    assert last == NEXT
    assert (found.picture() or b"").startswith(b"\x89PNG")


def test_inputs_alone_ask_nobody_for_samples_whatever_is_asked_of_windows(
    file: Path, data: Path, x: NDArray[Any], dark: Reports
) -> None:
    still = told(file, x)
    mixed = {
        device: [said | {"inputs": other["inputs"]} for said, other in zip(still[device], dark[device], strict=True)]
        for device in still
    }
    found = heard(file, data, mixed)
    assert found is not None
    (first, *words) = found.lines("3")
    assert first.endswith(
        "input statistics moved: only samples of 2 independent sources say so; not enough to act upon"
    )
    assert NEXT not in words
    strict = RULES.model_copy(update={"drift": RULES.drift.model_copy(update={"min_kinds": 4})})
    assert heard(file, data, dark, strict).lines("3")[-1] == NEXT  # type: ignore[union-attr]


def test_no_device_counts_for_more_answers_than_it_may_upload_samples(
    file: Path, data: Path, x: NDArray[Any], dark: Reports
) -> None:
    loud = told(file, np.concatenate([255 - x] * 3), 1)
    found = heard(file, data, told(file, x) | {"f" * 16: loud["0" * 16]})
    assert found is not None
    assert found.num_answers == len(x) + RULES.windows.max_per_device


def test_of_few_answers_nothing_is_said(file: Path, data: Path, x: NDArray[Any]) -> None:
    few = RULES.drift.min_samples - 1
    assert heard(file, data, told(file, 255 - x[:few])) is None
    assert heard(file, data, told(file, 255 - x[: few + 1])) is not None
    assert heard(file, data, {}) is None


@pytest.mark.parametrize(
    "lie",
    [
        {"confidence": {"growth": 1.5, "count": 0}},
        {"confidence": {"growth": 1.02, "count": 0}},
        {"predicted": {"10": 5}},
        {"predicted": {}},
        {"inputs": {}},
        {"inputs": {"mean 0": {"growth": 1.25, "count": 0}, "std 0": {"growth": 1.25, "count": 0}}},
        {"inputs": "none"},
    ],
)
def test_a_report_that_no_device_with_this_champion_writes_is_left_out(
    file: Path, data: Path, dark: Reports, lie: dict[str, Any]
) -> None:
    first, *others = dark
    torn = {first: [said | lie for said in dark[first]]} | {device: dark[device] for device in others}
    found, without = heard(file, data, torn), heard(file, data, {device: dark[device] for device in others})
    assert found is not None
    assert without is not None
    assert (found.num_devices, found.num_answers) == (3, without.num_answers)


def test_statistics_that_a_device_invents_hide_nothing(file: Path, data: Path, dark: Reports) -> None:
    invented = {"invented": {"growth": 1.25, "count": 1, "buckets": {"1": 1}}}
    reports = {device: [one | {"inputs": one["inputs"] | invented} for one in said] for device, said in dark.items()}
    found = heard(file, data, reports)
    assert found is not None
    assert found.report.fires


def test_a_world_that_was_learned_is_known(file: Path, data: Path, dark: Reports, tmp_path: Path) -> None:
    x, y = (np.asarray(array) for array in read(data, "train"))
    half = len(y) // 2
    learned = window(tmp_path / "noon", 255 - x[:half], y[:half], read_meta(data).classes)
    source = windows(base=str(data), folders=[str(learned)], replay=0.25)
    splits.write(tmp_path / "data", source, SplitParams(test=0.3, validation=0.3, calibration=0.05), 0)
    found = heard(file, tmp_path / "data", dark)
    assert found is not None
    assert found.lines("3") == []
    assert found.report.reason == "nothing moved since noon, which was learned"


def test_sketches_have_no_order_in_which_anything_could_have_begun(file: Path, data: Path, dark: Reports) -> None:
    found = heard(file, data, dark)
    assert found is not None
    changed = replace(found, group=replace(found.group, report=replace(found.group.report, changes={"confidence": ()})))
    assert changed.report.changes == {}

"""What a refresh makes of devices' reports: lines and files, and nothing else."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows import environment
from flows.refreshing import climbing, hearing
from flows.refreshing.climbing import Refresh
from limbeck.data.splits import read
from limbeck.errors import TrackingError
from limbeck.publishing.serving import Served
from limbeck.refresh import rules as rules_file
from limbeck.refresh.hearing import NEXT
from tests.conftest import ROOT, TINY
from tests.publishing.fleet import Fleet, asked, head, key_of
from tests.tracking.conftest import MODEL, write_export

RULES = rules_file.load(ROOT / "refresh.yaml")
SERVED = Served(3, "", 0, "a" * 64)
NOW = time.time()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_export(folder, 1.0, classes=10, height=8, width=8)
    return folder / "model.int8.onnx"


@pytest.fixture(scope="module")
def x(data: Path) -> NDArray[Any]:
    return np.asarray(read(data, "test")[0])


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Nobody has told anything yet of a version that was published."""
    made = Fleet(tmp_path / "published")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").touch()
    made.keep(MODEL, SERVED.sha256, tmp_path / "bundle")
    return made


def tell(fleet: Fleet, report: dict[str, Any], moment: float, served: Served = SERVED, devices: int = 3) -> None:
    for number in range(devices):
        device = f"{number:016x}"
        said = {**report, **head(device, served, "usage"), "from": moment - 3600, "to": moment}
        fleet.put_report(device, said, moment - 3600, key_of(served))


class Ears:
    """Listens as a refresh does; what was said the last time."""

    def __init__(self, fleet: Any, data: Path, file: Path, folder: Path) -> None:
        self.fleet, self.data, self.file, self.folder = fleet, data, file, folder

    def listen(self, *, version: str = "3", dry: bool = False) -> list[str]:
        said: list[str] = []
        hearing.listen(
            self.fleet, self.folder, self.data, self.file, RULES, model=MODEL, version=version, say=said.append, dry=dry
        )
        return said

    @property
    def kept(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


@pytest.fixture
def ears(fleet: Fleet, data: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ears:
    """A second goes by from one refresh to the next."""
    clock = iter(range(10**6))

    def now(zone: Any) -> Any:
        return real.fromtimestamp(NOW + next(clock), zone)

    real = hearing.datetime
    monkeypatch.setattr(hearing, "datetime", SimpleNamespace(now=now))
    return Ears(fleet, data, file, tmp_path / "heard")


@pytest.fixture(scope="module")
def dark(file: Path, x: NDArray[Any]) -> dict[str, Any]:
    return asked(file, 255 - x)


def test_a_world_that_moved_is_said_at_every_refresh_and_kept_once(
    ears: Ears, fleet: Fleet, dark: dict[str, Any]
) -> None:
    tell(fleet, dark, NOW)
    first, again = ears.listen(), ears.listen()
    assert first == again
    assert first[0].startswith("what devices tell (3 of them, 600 answers of version 3): input statistics")
    assert first[-1] == NEXT
    (kept,) = ears.kept
    assert (kept["version"], kept["devices"], kept["answers"]) == ("3", 3, 600)
    assert kept["report"]["fires"]
    assert len(list(ears.folder.glob("*.png"))) == 1


def test_a_world_that_is_as_before_again_is_kept_and_not_said(
    ears: Ears, fleet: Fleet, dark: dict[str, Any], file: Path, x: NDArray[Any]
) -> None:
    calm = asked(file, x)
    tell(fleet, calm, NOW)
    assert ears.listen() == []
    assert ears.kept == []
    fleet.files.clear()
    tell(fleet, dark, NOW)
    ears.listen()
    fleet.files.clear()
    tell(fleet, calm, NOW)
    assert ears.listen() == []
    assert [bool(each["moved"]) for each in ears.kept] == [True, False]


def test_another_champion_begins_anew(ears: Ears, fleet: Fleet, dark: dict[str, Any]) -> None:
    tell(fleet, dark, NOW)
    ears.listen()
    assert ears.listen(version="4") == [], "nobody has told of it yet"
    tell(fleet, dark, NOW, Served(4, "", 0, SERVED.sha256))
    assert ears.listen(version="4")
    assert [each["version"] for each in ears.kept] == ["3", "4"]


def test_a_dry_run_says_it_and_keeps_nothing(ears: Ears, fleet: Fleet, dark: dict[str, Any]) -> None:
    tell(fleet, dark, NOW)
    assert ears.listen(dry=True)
    assert not ears.folder.exists()


def test_without_a_server_nobody_is_heard(ears: Ears) -> None:
    ears.fleet = None
    assert ears.listen() == []


def test_what_cannot_be_heard_is_a_line(ears: Ears, fleet: Fleet, dark: dict[str, Any], tmp_path: Path) -> None:
    tell(fleet, dark, NOW)
    ears.file = tmp_path / "gone.onnx"
    (line,) = ears.listen()
    assert line.startswith("nobody knows what devices tell: ")

    def away(model: str) -> Any:
        raise TrackingError("the server answered 503.")

    fleet.kept = away  # type: ignore[method-assign]
    assert ears.listen() == ["nobody knows what devices tell: the server answered 503."]


def test_a_refresh_listens_before_it_says_that_nothing_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: Fleet, data: Path, dark: dict[str, Any]
) -> None:
    """Most of all where no window came: reports are all there is then."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    write_export(tmp_path / "export/phone", 1.0, classes=10, height=8, width=8)
    tell(fleet, dark, NOW)
    stored = SimpleNamespace(data=data, root=None, lost_root=None, teacher=SimpleNamespace(folder=tmp_path))
    monkeypatch.setattr(climbing.Champion, "of", lambda *_: stored)
    monkeypatch.setattr(climbing.windows, "take", lambda *_, **__: [])
    monkeypatch.setattr(Refresh, "uploads", fleet)
    monkeypatch.setattr(Refresh, "champion", lambda _: ("3", tmp_path))
    monkeypatch.setattr(Refresh, "variant", lambda *_: "model.int8")
    monkeypatch.setattr(Refresh, "learned", lambda *_: set())
    said: list[str] = []
    one = Refresh.quiet(tmp_path, "phone", RULES, said.append)
    one.model = MODEL
    assert one.run() == "no new window: nothing to do"
    assert said[-1] == NEXT
    assert list((one.place / "heard").glob("*.json"))

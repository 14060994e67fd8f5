"""`limbeck-edge` on a device: what it prints, what it refuses, the example."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.edge import EdgeError, cli
from limbeck.edge.home import Home, init
from tests.conftest import ROOT
from tests.edge.delivery import INPUTS, Publisher, provisioned
from tests.edge.test_agent import install


@pytest.fixture
def device(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A provisioned device that runs nothing yet; LIMBECK_EDGE_HOME names it."""
    home = provisioned(publisher, tmp_path)
    monkeypatch.setenv("LIMBECK_EDGE_HOME", str(home.path))
    return home


def test_a_device_is_provisioned_once_and_keeps_its_id(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = publisher.provision(tmp_path / "provisioned", "http://one:5000")
    assert cli.main(["init", str(folder), "--home", str(tmp_path / "home")]) == 0
    assert "Next: limbeck-edge update" in capsys.readouterr().out
    first = Home(tmp_path / "home").device
    publisher.provision(tmp_path / "provisioned", "http://two:5000", settings={"window_s": 5})
    second = init(tmp_path / "provisioned", tmp_path / "home").device
    assert (second.id, second.server, second.settings.window_s) == (first.id, "http://two:5000", 5)


def test_another_root_is_not_taken_by_provisioning_again(publisher: Publisher, tmp_path: Path) -> None:
    init(publisher.provision(tmp_path / "one", "http://one"), tmp_path / "home")
    other = Publisher(tmp_path / "other").provision(tmp_path / "two", "http://one")
    with pytest.raises(EdgeError, match="trusts another root than .*comes signed by the old one"):
        init(other, tmp_path / "home")


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "No such file or directory; expected the folder that `limbeck provision NAME --out FOLDER` writes"),
        ({"server": "http://one"}, "is no provisioning: KeyError"),
        ({"settings": {"windows": 5}}, "no setting 'windows'; there are check_every_s"),
        ({"settings": {"window_s": "5 min"}}, "window_s is '5 min'; expected a number from 0 on"),
    ],
)
def test_a_folder_that_provisions_nothing_is_refused(
    publisher: Publisher, tmp_path: Path, described: dict[str, Any] | None, message: str
) -> None:
    folder = publisher.provision(tmp_path / "one", "http://one")
    if described is None:
        (folder / "device.json").unlink()
    elif "settings" in described:
        publisher.provision(folder, "http://one", **described)
    else:
        (folder / "device.json").write_text(json.dumps(described))
    with pytest.raises(EdgeError, match=message):
        init(folder, tmp_path / "home")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "which device? Give --home FOLDER, or set LIMBECK_EDGE_HOME"),
        (["status", "--home", "absent"], "is missing: absent is no state folder of a device. Next: limbeck-edge init"),
    ],
)
def test_a_device_has_to_be_named(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LIMBECK_EDGE_HOME", raising=False)
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_record_says_what_to_do(device: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (device.path / "state.json").write_text("{")
    assert cli.main(["status"]) == 2
    assert "state.json is damaged" in capsys.readouterr().err


def test_status_rollback_and_predict(
    publisher: Publisher, device: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status"]) == 0
    assert "serves    nothing yet" in capsys.readouterr().out
    assert cli.main(["rollback"]) == 2
    assert "keeps no version before the first; nothing changed" in capsys.readouterr().err
    for serial in (1, 2):
        key = install(publisher, device, serial)
        with device.edit() as record:
            record.commit()
    assert cli.main(["rollback"]) == 0
    assert f"{key} is not taken until `limbeck-edge update --again`" in capsys.readouterr().out
    assert cli.main(["status", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["current"].startswith("1-")
    assert state["refused"] == {key: "rolled back on the device"}
    np.save(tmp_path / "samples.npy", INPUTS)
    assert cli.main(["predict", str(tmp_path / "samples.npy"), "--logits", str(tmp_path / "out.npy")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["serial"] for line in lines] == [1] * len(INPUTS)
    assert np.load(tmp_path / "out.npy").shape == (len(INPUTS), 10)


def test_an_update_from_a_stick_then_from_a_server_that_is_away(
    publisher: Publisher, device: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish(1)
    assert cli.main(["update", "--from", str(publisher.folder)]) == 0
    assert "digits-phone serial 1 serves, on probation" in capsys.readouterr().out
    described = json.loads((device.path / "device.json").read_text())
    (device.path / "device.json").write_text(json.dumps({**described, "server": None}))
    assert cli.main(["update"]) == 2
    assert "was provisioned without a server; give --from STICK" in capsys.readouterr().err


def test_the_example_acts_on_sure_frames_and_defers_the_rest(
    publisher: Publisher, device: Home, tmp_path: Path
) -> None:
    install(publisher, device, 1)
    frames = tmp_path / "frames"
    frames.mkdir()
    np.save(frames / "1.npy", INPUTS[0])
    np.save(frames / "2.npy", np.zeros((8, 8, 1), np.uint8))  # ten classes alike
    (frames / "3.npy").write_bytes(b"torn")
    app = f"{ROOT / 'examples/camera.py'}:watch"
    command = [sys.executable, "-m", "limbeck.edge.cli", "run", "--app", app, str(frames), "0.5"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in said) == (0, False)
    assert lines[0]["confidence"] > 0.5
    assert lines[1]["deferred"].endswith("with confidence 0.10")
    assert "deferred" in lines[2]


def test_an_application_that_is_none_is_named(device: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--app", "absent.py:watch"]) == 2
    assert "absent.py is no Python file; expected FILE.py:FUNCTION" in capsys.readouterr().err
    assert cli.main(["run", "--app", f"{ROOT / 'examples/camera.py'}:look"]) == 2
    assert "has no function 'look'" in capsys.readouterr().err

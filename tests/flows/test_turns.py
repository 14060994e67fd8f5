"""DVC's list of files in use: what a killed process held is free again, though nobody asked after it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.turns import forget_zombies


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and keeps its number."""
    process = subprocess.Popen([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid
    process.wait()


def held(workspace: Path, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the list says, once something was written there."""
    file = workspace / ".dvc/tmp/rwlock"
    if found is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), encoding="utf-8")
    listed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return listed


def test_what_a_zombie_held_is_free_and_the_rest_stays(tmp_path: Path, zombie: int) -> None:
    dead, living = {"pid": zombie, "cmd": "dvc repro"}, {"pid": os.getpid(), "cmd": "dvc repro"}
    held(tmp_path, {"read": {"data": [dead, living], "labels": [dead]}, "write": {"models": dead, "metrics": living}})
    forget_zombies(tmp_path)
    assert held(tmp_path) == {"read": {"data": [living]}, "write": {"metrics": living}}


@pytest.mark.parametrize("found", [None, {}, {"read": {}, "write": {"models": {"pid": 1, "cmd": "init"}}}])
def test_nothing_happens_where_nobody_is_dead(tmp_path: Path, found: dict[str, Any] | None) -> None:
    before = None if found is None else held(tmp_path, found)
    forget_zombies(tmp_path)
    assert before == (held(tmp_path) if (tmp_path / ".dvc").exists() else None)


def test_dvc_goes_on_where_a_zombie_stood_in_its_way(tmp_path: Path, zombie: int) -> None:
    def dvc(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert dvc("init", "--no-scm").returncode == 0
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > out, outs: [out]}}", encoding="utf-8")
    held(tmp_path, {"read": {}, "write": {str(tmp_path / "out"): {"pid": zombie, "cmd": "dvc repro"}}})
    assert "is busy" in dvc("repro").stderr
    forget_zombies(tmp_path)
    assert dvc("repro").returncode == 0

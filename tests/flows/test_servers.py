"""What `make up` holds together: programs that are started again, servers whose end is the end, nothing left behind."""

import os
import socket
import time
from pathlib import Path

import psutil
import pytest

from flows.services import servers
from flows.services.servers import Ended, Programs
from limbeck.tracking import webhooks

LONG_S = 30.0


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program that notes that it was started, and stays or goes."""
    (tmp_path / "noting.py").write_text(
        "import os, sys, time\nprint(os.getpid(), flush=True)\ntime.sleep(0 if sys.argv[1:] else 600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "noting"


def pids(log: Path, num: int) -> list[int]:
    limit = time.monotonic() + LONG_S
    while len(log.read_text().splitlines()) < num and time.monotonic() < limit:
        time.sleep(0.02)
    return [int(line) for line in log.read_text().splitlines()]


def test_a_worker_that_ends_is_started_again_and_all_end_together(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "PAUSE_S", 0.01)
    with Programs(tmp_path / "logs") as programs:
        programs.serve("server", [module], dict(os.environ))
        programs.work("worker", [module], dict(os.environ))
        (first,) = pids(tmp_path / "logs/worker.log", 1)
        psutil.Process(first).kill()
        limit = time.monotonic() + LONG_S
        while len((tmp_path / "logs/worker.log").read_text().splitlines()) < 2 and time.monotonic() < limit:
            programs.look()
            time.sleep(0.02)
        alive = pids(tmp_path / "logs/server.log", 1) + pids(tmp_path / "logs/worker.log", 2)[1:]
        assert len(set(alive)) == 2
    assert not any(psutil.pid_exists(pid) for pid in alive)
    assert "The worker ended (code -9), again in 0.01 s; see" in capsys.readouterr().out


def test_the_end_of_a_server_is_named_with_its_log(tmp_path: Path, module: str) -> None:
    with Programs(tmp_path) as programs:
        programs.serve("mlflow", [module, "go"], dict(os.environ))
        with pytest.raises(Ended, match=r"mlflow ended by itself \(code 0\); see .*mlflow.log"):
            programs.until(lambda: False, "mlflow")


def test_a_port_that_is_taken_is_not_taken_for_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Ended, match="--mlflow-port another"):
        servers._free(other.getsockname()[1], "--mlflow-port")


def test_the_secret_goes_only_to_those_who_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(webhooks.SECRET, "x" * 32)
    assert webhooks.SECRET not in servers._without_secret()

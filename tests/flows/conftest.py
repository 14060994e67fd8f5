"""What tests of flows share: a small DVC project whose stages behave as told, and Prefect's test server."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import environment

ROOT = Path(__file__).resolve().parents[2]

# Reports as real stages do (limbeck.tracking), then does what its last argument says.
STAGE = """
import json, os, signal, sys, time
from pathlib import Path

name, out, how = sys.argv[1:4]
status = Path(".limbeck/status") / f"{name}.json"
status.parent.mkdir(parents=True, exist_ok=True)
started = str(time.time_ns())


def say(outcome, message=None, code=None):
    word = dict(stage=name, outcome=outcome, error=None, exit_code=code, message=message, seconds=0.0,
                started=started, pid=os.getpid(), progress=dict(done=1, total=2, note="half"))
    status.write_text(json.dumps(word))


def span(kind):
    with open("order.txt", "a") as file:
        print(kind, name, file=file)


say("running")
span("begin")
print(f"{name} speaks", flush=True)
if how.startswith("fail"):
    say("failed", f"{name} broke", int(how[4:]))
    sys.exit(int(how[4:]))
if how == "die" or (how == "die-once" and not Path("died").exists()):
    Path("died").touch()
    os.kill(os.getpid(), signal.SIGKILL)
if how.startswith("sleep"):
    time.sleep(float(how[5:]))
Path(out).write_text(name)
span("end")
say("done", code=0)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let DVC's libraries warn about one another; our own code stays under "warnings are errors"."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"))


Project = Callable[[dict[str, dict[str, Any]]], Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Make a DVC project of these stages, or change it to these; see `make_project`."""
    return partial(make_project, tmp_path)


def make_project(folder: Path, stages: dict[str, dict[str, Any]]) -> Path:
    """Make a DVC project from `{"prune@phone": {"how": "ok", "after": ["label"], **meta}}`; params are the real ones.

    How: ok, fail2 (with that exit code), die, die-once, sleep3. Targets of one stage share `after` and meta.
    """
    (folder / ".dvc").mkdir(exist_ok=True)
    (folder / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = false\n")
    (folder / "stage.py").write_text(STAGE)
    shutil.copy(ROOT / "params.yaml", folder)
    entries: dict[str, Any] = {}
    for name, stage in stages.items():
        base, _, target = name.partition("@")
        how = stage.get("how", "ok")
        if not target:
            entries[base] = _entry(base, base, how, stage)
        elif base in entries:
            entries[base]["foreach"][target] = how
        else:
            entries[base] = {"foreach": {target: how}, "do": _entry(f"{base}@${{key}}", base, "${item}", stage)}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": entries}, sort_keys=False))
    return folder


def _entry(label: str, base: str, how: str, stage: dict[str, Any]) -> dict[str, Any]:
    out = f"{base}-${{key}}.txt" if "@" in label else f"{base}.txt"
    after = [
        f"{up.removesuffix('@')}-${{key}}.txt" if up.endswith("@") else f"{up}.txt" for up in stage.get("after", ())
    ]
    meta = {key: value for key, value in stage.items() if key not in ("how", "after")}
    return {
        "cmd": f"python stage.py {label} {out} {how}",
        "desc": f"what {base} does",
        "deps": after,
        "outs": [out],
        "meta": meta,
    }


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server of our own for the whole session (it takes some seconds to start)."""
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ.update(environment.SILENT)
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield

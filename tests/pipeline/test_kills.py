"""SIGKILL at ten moments; the same command again ends where an undisturbed run ends.

Two clones are disturbed five times each, moment after moment: one under plain `dvc repro`, one under the flow.
Each time: start the command, wait for the moment, kill, see that nothing of the clone is alive five seconds
later, start again. The last start is left alone.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.pipeline.clones import Clone, clone, wait_for

pytestmark = pytest.mark.slow

GONE_WITHIN_S = 5.0
COMMANDS = {"dvc": ("dvc", "repro"), "flow": ("python", "-m", "flows.compress")}

# int8 in name only: 4 bits of activation lose so much that QAT follows, whatever the training gave.
COARSE = '''
"""A quantization so coarse that calibration alone never does."""

import dataclasses


def coarse(quantization):
    from limbeck.quantization import static

    quantizer = static(quantization)
    config = quantizer.global_config
    few = dataclasses.replace(config.input_activation, quant_min=0, quant_max=3)
    return quantizer.set_global(dataclasses.replace(config, input_activation=few, output_activation=few))
'''

LONGER = {
    "teacher.train.epochs": 120,
    "targets.phone.student.train.epochs": 30,
    "targets.sensor.student.train.epochs": 30,
    "targets.sensor.quantize.use": "custom.quantizations.coarse:coarse",
    "targets.sensor.quantize.max_float_layers": 0,
    "targets.sensor.quantize.qat.epochs": 40,
    "targets.sensor.contract.max_drop": 0.25,
    "targets.sensor.export.min_equal": 0.5,
}
"""Epochs long enough to be killed in, and a target whose int8 version needs QAT and then does not ship."""


@dataclass(frozen=True)
class Moment:
    """When to kill, and what."""

    name: str
    seen: Callable[[Clone], object]
    victim: str  # stage, dvc, command (what the user started) or group (the command's process group)
    stage: str


def in_training(stage: str, arm: str, share: float, kept: bool = False) -> Callable[[Clone], object]:
    """In an epoch of a training, that share of it done; `kept`: with a state file to resume from."""

    def seen(made: Clone) -> object:
        said = made.status(stage)
        progress = said.get("progress") if said.get("outcome") == "running" else None
        if not progress or not psutil.pid_exists(said["pid"]):  # what a killed run said last still stands there
            return None
        if not progress["note"].startswith(arm) or progress["done"] < share * progress["total"]:
            return None
        return not kept or list(made.folder.glob(f".limbeck/scratch/{stage}-*/{arm}.pt"))

    return seen


def writing(pattern: str) -> Callable[[Clone], object]:
    """A half-written file is there."""
    return lambda made: list(made.folder.glob(pattern))


def before_lock(stage: str) -> Callable[[Clone], object]:
    """The stage says done, dvc.lock does not know it yet."""
    return lambda made: made.status(stage).get("outcome") == "done" and stage not in made.locked()


def registering(target: str) -> Callable[[Clone], object]:
    """The version is made, the decision is not written."""

    def seen(made: Clone) -> object:
        return not (made / f"registry/{target}.json").exists() and made.versions().get(f"tiny-{target}")

    return seen


MOMENTS = {
    "dvc": [
        Moment("mid-epoch of the teacher, with a state to resume", in_training("teacher", "teacher", 0.3, kept=True), "stage", "teacher"),
        Moment("mid-epoch of distill", in_training("distill@phone", "student", 0.3), "dvc", "distill@phone"),
        Moment("between an output and dvc.lock", before_lock("prune@sensor"), "dvc", "prune@sensor"),
        Moment("mid-epoch of QAT", in_training("quantize@sensor", "qat", 0.3), "stage", "quantize@sensor"),
        Moment("mid-write of an ONNX file", writing("export/phone.partial/*.onnx*"), "group", "export@phone"),
    ],
    "flow": [
        Moment("mid-epoch of the teacher", in_training("teacher", "teacher", 0.3), "command", "teacher"),
        Moment("between an output and dvc.lock", before_lock("label"), "group", "label"),
        Moment("mid-epoch of the control", in_training("distill@sensor", "control", 0.3), "dvc", "distill@sensor"),
        Moment("mid-epoch of QAT", in_training("quantize@sensor", "qat", 0.3), "command", "quantize@sensor"),
        Moment("mid-registration", registering("phone"), "group", "register@phone"),
    ],
}  # fmt: skip
"""In the order in which an undisturbed run meets them."""


REGISTRY = """
import json, mlflow
client = mlflow.MlflowClient()
found = {}
for model in client.search_registered_models():
    made = client.search_model_versions(f"name = '{model.name}'")
    found[model.name] = {
        "versions": sorted(str(version.version) for version in made),
        "identities": sorted(version.tags["limbeck.identity"] for version in made),
        "aliases": model.aliases,
    }
print(json.dumps(found))
"""


def registry(made: Clone) -> dict[str, Any]:
    """What mlflow's client says of the clone's registry."""
    done = made.run("python", "-c", REGISTRY, MLFLOW_TRACKING_URI=f"sqlite:///{made / 'mlflow.db'}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def drill(tmp_path_factory: pytest.TempPathFactory, origin: Path) -> Path:
    """A repository whose params train long enough to be killed in."""
    made = clone(origin, tmp_path_factory.mktemp("drill") / "origin")
    (made / "custom/quantizations/coarse.py").write_text(COARSE)
    made.set_params(LONGER)
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=drill")
    return made.folder


@pytest.fixture(scope="session")
def undisturbed(drill: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The same repository, run once without any kill."""
    made = clone(drill, tmp_path_factory.mktemp("undisturbed") / "limbeck")
    made.dvc("repro")
    assert json.loads((made / "metrics/sensor/quantize.json").read_text())["rungs"].get("qat"), "QAT has to run"
    return made


def kill(made: Clone, command: "subprocess.Popen[bytes]", moment: Moment) -> None:
    """SIGKILL the victim."""
    if moment.victim == "group":
        os.killpg(command.pid, signal.SIGKILL)
    elif moment.victim == "command":
        command.kill()
    elif moment.victim == "stage":
        psutil.Process(made.status(moment.stage)["pid"]).kill()
    else:  # not by its child, which may have ended: `dvc repro`, or the flow's `dvc ... repro --single-item STAGE`
        commands = {process: process.cmdline() for process in made.processes()}
        repros = {process: words for process, words in commands.items() if "repro" in words and "-c" not in words}
        (victim,) = [
            process for process, words in repros.items() if moment.stage in words or "--single-item" not in words
        ]
        victim.kill()


@pytest.mark.parametrize("by", ["dvc", "flow"])
def test_kills_at_five_moments_change_no_result(by: str, drill: Path, undisturbed: Clone, tmp_path: Path) -> None:
    made = clone(drill, tmp_path / "limbeck")
    for moment in MOMENTS[by]:
        with made.running(*COMMANDS[by]) as command:

            def seen(moment: Moment = moment, command: "subprocess.Popen[bytes]" = command) -> object:
                ended = command.poll()
                assert ended is None, f"it ended with {ended} before {moment.name}: {tail(made)}"
                return moment.seen(made)

            wait_for(seen, f"{moment.name}: {tail(made)}", limit_s=600, every_s=0.005)
            kill(made, command, moment)
            if by == "flow" and moment.victim in ("dvc", "stage"):  # a crash, which the flow tries again by itself
                continue_or_end(made, command)
                continue
            wait_for(lambda: not made.processes(), f"all processes to end after {moment.name}", limit_s=GONE_WITHIN_S)
    done = made.run(*COMMANDS[by])
    assert made.results() == undisturbed.results(), done.stdout
    found, expected = registry(made), registry(undisturbed)
    assert {name: model["versions"] for name, model in found.items()} == {"tiny-phone": ["1"], "tiny-sensor": ["1"]}
    assert {name: model["aliases"] for name, model in found.items()} == {
        name: model["aliases"] for name, model in expected.items()
    }
    ledger = [json.loads(line) for line in (made / "ledger.jsonl").read_text().splitlines()]
    assert sorted(entry["model"] for entry in ledger) == ["tiny-phone", "tiny-sensor"], (
        "each promotion stands there once"
    )
    assert not list(made.folder.rglob("*.partial"))
    wait_for(lambda: not made.processes(), "all processes to end after the last run", limit_s=GONE_WITHIN_S)


def continue_or_end(made: Clone, command: "subprocess.Popen[bytes]") -> None:
    """See the flow try a crashed stage again, then end it too."""
    pid = made.status("distill@sensor")["pid"]
    wait_for(lambda: made.status("distill@sensor")["pid"] != pid, f"another attempt: {tail(made)}", limit_s=120)
    command.kill()
    wait_for(lambda: not made.processes(), "all processes to end after the flow was killed", limit_s=GONE_WITHIN_S)


def tail(made: Clone) -> str:
    output = made / ".limbeck/output"
    return output.read_text(errors="replace")[-3000:] if output.exists() else "(no output)"

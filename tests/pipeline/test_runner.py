"""`python -m stages ...` met with what goes wrong: one clear message, exit code 2, no traceback, nothing else changed."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from limbeck import labels, models, params
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import read_meta
from tests.pipeline.clones import Clone, wait_for

ENDED_WITHIN_S = 1.0
SLACK_S = 1.0
"""What a busy machine may take to look."""

NAN_LOSS = '''
"""A loss that breaks in its third step."""

from limbeck.objectives import cross_entropy

calls = 0


def broken(logits_BK, batch):
    global calls
    calls += 1
    return cross_entropy(logits_BK, batch) * (float("nan") if calls == 3 else 1.0)
'''

# Runs in a mount namespace of its own: nothing has to be unmounted, and no other process sees it.
FULL_DISK = """
set -e
left=$1 disk=$2 from=$3
shift 3
mount -t tmpfs tmpfs "$disk"
cp -a "$from"/. "$disk"
cd "$disk"
used=$(df --output=used -B1 . | tail -1)
mount -o remount,size=$((used + left)) "$disk"
set +e
python -m stages "$@"
code=$?
find . -name '*.partial' -print | sed 's/^/left behind: /'
exit $code
"""


def refused(workspace: Clone, stage: str, **variables: str) -> str:
    """Run a stage that must refuse as the user's mistake deserves: what it said."""
    before = workspace.files()
    done = workspace.stage(stage, expect=2, **variables)
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count(f"{stage}: ") == 1, f"one message, found: {done.stderr}"
    assert workspace.files() == before, "nothing else changed"
    assert workspace.status(stage)["outcome"] == "failed"
    assert workspace.status(stage)["exit_code"] == 2
    return done.stderr


def put_checkpoint(workspace: Clone, folder: str) -> Path:
    """An untrained network where a trained one belongs."""
    meta = read_meta(workspace / "data")
    spec = Spec(
        model=Component(use="convnet", width=4, depth=2), shape=meta.shape, dtype=meta.dtype, classes=meta.classes,
        mean=meta.mean, std=meta.std,
    )  # fmt: skip
    models.save(workspace / folder, spec, models.build(spec))
    return workspace / folder


def put_labels(workspace: Clone) -> None:
    """The soft labels of an untrained teacher."""
    _, network = models.load(put_checkpoint(workspace, "models/teacher"))
    labels.write(
        workspace / "labels", workspace / "data", network, params.load(workspace / "params.yaml").label,
        seed=0, teacher_digest="none", teacher_quality=0.1, progress=lambda done, total, note: None,
    )  # fmt: skip


# --- params.yaml

SIMILARITY = {"use": "similarity", "gamma": 100, "control": False}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"targets.phone.export.opste": 18}, "targets.phone.export.opste: unknown key; did you mean 'opset'?"),
        ({"targets.phone.prune.ratoi": 0.5}, "importance 'magnitude' has no keyword 'ratoi'; did you mean 'ratio'?"),
        ({"targets.phone.quantize.batch_size": 0}, "targets.phone.quantize.batch_size: "),
        ({"targets.phone.distill.use": "kdd"}, "no loss 'kdd'; did you mean 'kd'?"),
        ({"targets.phone.distill.alhpa": 0.5}, "loss 'kd' has no keyword 'alhpa'; did you mean 'alpha'?"),
        ({"targets.phone.distill.use": "custom.missing:loss"}, "cannot import 'custom.missing'"),
        ({"targets.phone.distill": SIMILARITY}, "targets.phone.distill: similarity learns from the teacher's features"),
        ({"teacher.model.use": "json:loads"}, "model 'json:loads' needs s; add it beside `use`"),
        ({"tracking.uri": "mlflow.db"}, "'mlflow.db' is no tracking URI; expected e.g. sqlite:///mlflow.db"),
    ],
    ids=["key", "importance", "range", "component", "keyword", "import", "features", "no model", "uri"],
)
def test_a_mistake_in_a_late_section_stops_the_first_stage(
    workspace: Clone, values: dict[str, object], message: str
) -> None:
    workspace.set_params(values)
    assert message in refused(workspace, "prepare")


def test_a_target_without_a_needed_clause_is_refused(workspace: Clone) -> None:
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("      max_size_kb: 200\n", "", 1))
    assert "targets.phone.contract.max_size_kb: missing" in refused(workspace, "prepare")


def test_an_unknown_target_names_the_known_ones(workspace: Clone) -> None:
    assert "params.yaml has no target 'phnoe'; it has phone, sensor" in refused(workspace, "distill@phnoe")


# --- files


def test_a_missing_input_names_the_stage_to_run(workspace: Clone) -> None:
    assert "label reads models/teacher, which is missing; run `dvc repro label`" in refused(workspace, "label")


def test_a_truncated_checkpoint_is_refused(workspace: Clone) -> None:
    weights = put_checkpoint(workspace, "models/teacher") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    message = refused(workspace, "label")
    assert "models/teacher/weights.safetensors is corrupt or truncated: expected sha256" in message
    assert "`dvc checkout` restores it" in message


def test_a_description_that_is_no_json_is_refused(workspace: Clone) -> None:
    (put_checkpoint(workspace, "models/teacher") / "model.json").write_text("{")
    assert "models/teacher/model.json is no checkpoint" in refused(workspace, "label")


def test_a_prepared_array_that_changed_is_refused(workspace: Clone) -> None:
    array = workspace / "data/train/y.npy"
    array.write_bytes(array.read_bytes()[:-8] + bytes(8))
    assert "data/train/y.npy has changed since it was prepared: expected sha256" in refused(workspace, "teacher")


# --- while it runs


def test_a_loss_that_is_no_number_stops_at_its_step(workspace: Clone) -> None:
    (workspace / "custom/losses/nan_loss.py").write_text(NAN_LOSS)
    put_labels(workspace)
    workspace.set_params({"targets.sensor.distill": {"use": "custom.losses.nan_loss:broken", "control": False}})
    message = refused(workspace, "distill@sensor")
    assert "the loss is nan at step 3 of 36 (epoch 1); expected a finite number" in message
    assert not (workspace / "models/sensor").exists() or not list((workspace / "models/sensor").iterdir())


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a stage in a copy of a clone on a disk with so many bytes left."""
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a small disk")

    def run(workspace: Clone, stage: str, *, left: int) -> "subprocess.CompletedProcess[str]":
        disk = tmp_path / "disk"
        disk.mkdir()
        namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "sh", str(left), str(disk)]
        command = [*namespace, str(workspace.folder), *workspace.command_of(stage)]
        return workspace.run(*command, expect=None, PYTHONDONTWRITEBYTECODE="1")

    return run


@pytest.mark.parametrize(("stage", "left"), [("prepare", 60_000), ("teacher", 60_000), ("label", 30_000)])
def test_a_disk_that_fills_up_in_the_middle_of_a_write_is_named(
    workspace: Clone, on_a_small_disk: Callable[..., "subprocess.CompletedProcess[str]"], stage: str, left: int
) -> None:
    if stage == "label":
        put_checkpoint(workspace, "models/teacher")
    done = on_a_small_disk(workspace, stage, left=left)
    assert f"{stage}: cannot write " in done.stderr
    assert "the disk is full; free some space, then repeat the command." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert "left behind" not in done.stdout, "what was half written would keep the disk full"


# --- its parent


@pytest.mark.parametrize("whose", ["shell", "flow"])
def test_a_stage_ends_within_a_second_of_its_parents_death(workspace: Clone, whose: str) -> None:
    workspace.set_params({"teacher.train.epochs": 10_000})
    shell = ["sh", "-c", 'python -m stages "$@"; true', "sh", *workspace.command_of("teacher")]
    with workspace.running("sleep", "600") as flow, workspace.running(*shell, LIMBECK_WATCH=str(flow.pid)) as parent:
        wait_for(lambda: workspace.status("teacher").get("progress"), "the teacher's first steps")
        stage = psutil.Process(workspace.status("teacher")["pid"])
        assert parent.pid in [above.pid for above in stage.parents()]
        os.kill((parent if whose == "shell" else flow).pid, signal.SIGKILL)
        wait_for(lambda: not _lives(stage), "the stage to end", limit_s=ENDED_WITHIN_S + SLACK_S)
    assert workspace.status("teacher")["outcome"] == "running", "it had no time for a last word"
    assert not (workspace / "models/teacher").exists()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_what_a_failed_stage_made_before_comes_back_with_dvc_checkout(workspace: Clone) -> None:
    workspace.dvc("repro", "teacher")
    before = workspace.files()
    good = (workspace / "params.yaml").read_text()
    workspace.set_params({"teacher.train.lr": 1e30})
    failed = workspace.dvc("repro", "teacher", expect=255)
    assert "teacher: teacher: the loss is " in failed.stderr
    assert "Traceback" not in failed.stderr
    (workspace / "params.yaml").write_text(good)
    workspace.dvc("checkout", "teacher")
    kept = {
        name: digest for name, digest in before.items() if not name.startswith("metrics/")
    }  # those are git's to keep
    assert kept.items() <= workspace.files().items()
    assert "'teacher' is cached - skipping run" in workspace.dvc("repro", "teacher").stdout, "and repro brings the rest"
    assert workspace.files() == before
    assert "up to date" in workspace.dvc("status", "prepare", "teacher").stdout

"""MLflow: what came out. The only file that imports it, and only inside functions: it takes seconds.

    stages --> .limbeck/spool/*.jsonl --> Replayer --> runs            (live in the flow, or after the fact)
    register --> logged model --> version + lineage tags --> aliases --> ledger

Everything here can be cut off at any moment and begun again: runs carry the name of their spool file,
versions the identity of their content, and each is looked for before it is made. A server that is away costs
one probe and no result.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import numpy as np
import psutil
import yaml
from numpy.typing import NDArray

from limbeck import ledger
from limbeck.edge import golden
from limbeck.edge import manifest as manifest_file
from limbeck.edge.manifest import sha256
from limbeck.errors import TrackingError
from limbeck.evaluation import Scores, paired_difference
from limbeck.params import MeasureParams, check_tracking_uri
from limbeck.recording import HOME, Report
from limbeck.selection import CANDIDATES, Decision

ROOT = Path(__file__).resolve().parents[1]
SQLITE = "sqlite:///"
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}

PROBE_S = 3.0
REMEMBER_S = 30.0
"""How long a probe's answer holds: a server that is away costs a long flow one probe in this time."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
    # As it comes, the client asks an absent server seven times, four minutes in all.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
BUNDLE = "extra_files"
"""Where `mlflow.onnx.log_model` puts files beside the model: the exported bytes, untouched by a re-serialization."""


# Reaching the server


def home_of(workspace: Path) -> Path:
    """Where a workspace's registry and ledger live: the project, or the folder itself outside of it."""
    place = workspace.resolve()
    return ROOT if place.is_relative_to(ROOT) else place


def tracking_uri(declared: str, workspace: Path = Path()) -> str:
    """The server: MLFLOW_TRACKING_URI, else what params.yaml declares; a relative SQLite file lies in the project.

    Raises:
        TrackingError: it is no tracking URI.

    """
    try:
        uri = check_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or declared)
    except ValueError as error:
        raise TrackingError(f"{error}; set tracking.uri in params.yaml, or MLFLOW_TRACKING_URI.") from None
    file = uri.removeprefix(SQLITE)
    if not uri.startswith(SQLITE) or not file or file.startswith("/"):
        return uri
    return f"{SQLITE}{home_of(workspace) / file}"


def probe(uri: str) -> bool:
    """Ask once, for at most three seconds, whether the server answers; a file needs no asking.

    Raises:
        TrackingError: it is no tracking URI.

    """
    try:
        check_tracking_uri(uri)
    except ValueError as error:
        raise TrackingError(f"{error}.") from None
    answer: list[bool] = []
    # A thread, because no timeout of a library covers looking the name up and a server that trickles.
    thread = threading.Thread(target=lambda: answer.append(_is_up(uri)), daemon=True, name="probe")
    thread.start()
    thread.join(PROBE_S)
    return answer == [True]


def _is_up(uri: str) -> bool:
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme not in PORTS or not parts.hostname:
        return True
    try:
        if scheme.startswith("http"):
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_S):
                return True
        with socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), timeout=PROBE_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500  # whoever refuses is there; a gateway without a server behind it answers 502 or 503
    except (OSError, ValueError):
        return False


_known: dict[str, tuple[bool, float]] = {}


def answers(uri: str) -> bool:
    """`probe`, remembered for half a minute."""
    found, until = _known.get(uri, (False, 0.0))
    if time.monotonic() >= until:
        found = probe(uri)
        _known[uri] = (found, time.monotonic() + REMEMBER_S)
    return found


def forget(uri: str) -> None:
    """Probe again at the next question."""
    _known.pop(uri, None)


def _require(uri: str, next_step: str = "Repeat the command when it does") -> None:
    if not answers(uri):
        raise TrackingError(
            f"the tracking server at {uri} does not answer. {next_step}, or set MLFLOW_TRACKING_URI to another one."
        )


LATER = "Everything else is done; the same command registers later, when it does"


_importing = threading.Lock()


def _client(uri: str) -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with _importing, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between MLflow and its libraries
        import mlflow

        for name in ("alembic", "mlflow.store.db.utils", "mlflow.utils.environment"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when the server, the way to it or its database fails."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (
        MlflowException,
        RequestException,
        SQLAlchemyError,
        json.JSONDecodeError,
    )  # no JSON: not MLflow that answers


@contextmanager
def _asking(uri: str) -> Iterator[Any]:
    """A client; whatever it fails with is a `TrackingError`."""
    client = _client(uri)
    try:
        yield client
    except _failures() as error:
        forget(uri)
        raise TrackingError(f"the tracking server at {uri} failed: {error}. The same command goes on later.") from error


def _is_missing(error: Exception) -> bool:
    # An alias that does not exist is INVALID_PARAMETER_VALUE on some stores.
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _experiment(client: Any, uri: str, name: str) -> str:
    """The experiment's id. With a database and no server its artifacts lie in `mlruns` beside the database."""
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None
        if not uri.startswith("http"):
            file = uri.removeprefix(SQLITE)
            place = ((Path(file).parent if uri.startswith(SQLITE) else ROOT) / "mlruns").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except _failures() as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _find_run(client: Any, experiment_id: str, tag: str, value: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None


# Runs: from spool files to MLflow


@dataclass
class _Spooled:
    """A spool file and how far it has been read."""

    path: Path
    offset: int = 0
    begin: dict[str, Any] | None = None
    run_id: str | None = None
    artifacts: list[str] = field(default_factory=list)

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """The events appended since `offset`, whole lines only, and where they end."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        events = []
        for line in whole.splitlines():
            with suppress(ValueError):  # a line that a full disk cut short
                events.append(json.loads(line))
        return events, self.offset + len(whole)

    def is_alive(self) -> bool:
        """Whether the process that writes it still runs (and not another one under its old number)."""
        pid = int(self.path.stem.rsplit("-", 1)[-1])
        try:
            return psutil.Process(pid).create_time() <= self.path.stat().st_mtime
        except psutil.NoSuchProcess:
            return False


class Replayer:
    """Carries spool files into MLflow: one parent run per pipeline run, one nested run per executed stage.

    `poll` reads what was appended since the last time; a file whose run has ended is removed once MLflow has
    it all. A second replayer on the same folder, in whatever process, does nothing. Neither `poll` nor `close`
    raises for a server that is away or fails: what is spooled stays.

    Args:
        spool_dir: `.limbeck/spool` of a workspace.
        uri: the tracking server.
        experiment: its experiment.
        group: the pipeline run whose parent stays open until `close`; empty when only clearing up.

    Raises:
        TrackingError: `uri` is no tracking URI.

    """

    def __init__(self, spool_dir: Path, *, uri: str, experiment: str, group: str = "") -> None:
        try:
            check_tracking_uri(uri)
        except ValueError as error:
            raise TrackingError(f"{error}.") from None
        self.spool_dir, self.uri, self.experiment, self.group = spool_dir, uri, experiment, group
        self._files: dict[str, _Spooled] = {}
        self._lock: TextIO | None = None
        self._experiment_id = ""

    def poll(self) -> int:
        """Send what is new; the number of runs that were completed."""
        files = sorted(self.spool_dir.glob("*.jsonl"))
        if not files or not self._is_sole() or not answers(self.uri):
            return 0
        client = _client(self.uri)
        try:
            self._experiment_id = self._experiment_id or _experiment(client, self.uri, self.experiment)
            return sum(self._try(client, file) for file in files)
        except _failures() as error:
            _known[self.uri] = (False, time.monotonic() + REMEMBER_S)
            logging.getLogger(__name__).warning("runs stay spooled: %s", error)
            return 0

    def close(self) -> None:
        """Give every parent run whose stages are all told its final status, and let go of the folder."""
        try:
            if any(self.spool_dir.glob("*.group")) and self._is_sole() and answers(self.uri):
                self._conclude(_client(self.uri))
        except _failures() as error:
            logging.getLogger(__name__).warning("a parent run stays open: %s", error)
        finally:
            if self._lock:
                self._lock.close()
                self._lock = None

    def _is_sole(self) -> bool:
        if self._lock is None:
            self.spool_dir.mkdir(parents=True, exist_ok=True)
            lock = (self.spool_dir / "lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                return False
            self._lock = lock  # the kernel lets go of it when we die
        return True

    def _try(self, client: Any, path: Path) -> bool:
        """`_advance`; a file that MLflow can never take is put aside, so that it holds up neither others nor us."""
        try:
            return self._advance(client, path)
        except _failures() as error:
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            reason: Exception = error
        except (KeyError, TypeError, ValueError) as error:
            reason = error
        path.rename(path.with_suffix(".rejected"))
        self._files.pop(path.name, None)
        logging.getLogger(__name__).warning("%s cannot be sent and was put aside: %r", path, reason)
        return False

    def _advance(self, client: Any, path: Path) -> bool:
        """Send a file's new events; True when its run is complete and the file gone."""
        spooled = self._files.setdefault(path.name, _Spooled(path))
        is_alive = spooled.is_alive()  # before reading: what it wrote last is then read
        events, end_of_read = spooled.read()
        end = next((event for event in events if event["event"] == "end"), None)
        spooled.begin = spooled.begin or next((event for event in events if event["event"] == "begin"), None)
        if spooled.begin is None:
            if not is_alive:
                path.unlink(missing_ok=True)
            return False
        is_over = end is not None or not is_alive
        if not is_over and (not events or spooled.begin["stage"].startswith("register")):
            return False  # a register stage makes its own run, found by its tag once the stage is over
        run_id = spooled.run_id = spooled.run_id or self._run(client, spooled.begin, path.name)
        self._log(client, run_id, events)
        spooled.artifacts += [event["path"] for event in events if event["event"] in ("artifact", "figure")]
        spooled.offset = end_of_read
        if is_over:
            self._end(client, spooled, run_id, end)
            path.unlink(missing_ok=True)
            del self._files[path.name]
        return is_over

    def _run(self, client: Any, begin: dict[str, Any], name: str) -> str:
        """The run of a spool file: found by its tag, or made."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        parent = self._parent(client, begin)
        run_id = _find_run(client, self._experiment_id, "limbeck.spool", name)
        tags = {
            "limbeck.spool": name,
            "limbeck.group": begin["group"],
            "limbeck.stage": begin["stage"],
            "mlflow.parentRunId": parent,
        } | ({"limbeck.target": begin["target"]} if begin.get("target") else {})
        if run_id is None:
            started = _milliseconds(begin["started"])
            run = client.create_run(self._experiment_id, start_time=started, tags=tags, run_name=begin["stage"])
            run_id = str(run.info.run_id)
        else:
            client.set_tag(run_id, "mlflow.parentRunId", parent)
        params = [Param(_key(key), str(value)) for key, value in begin["params"].items()]
        for start in range(0, len(params), 100):
            client.log_batch(run_id, params=params[start : start + 100])
        if data := begin.get("dataset"):
            # MLflow keeps 36 characters of a digest; the whole one is in the source.
            source = json.dumps({"path": "data", "sha256": data["digest"]})
            dataset = Dataset(data["name"], data["digest"][:36], "local", source)
            context = InputTag("mlflow.data.context", begin["stage"].partition("@")[0])
            client.log_inputs(run_id, [DatasetInput(dataset, [context])])
        return run_id

    def _log(self, client: Any, run_id: str, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(_key(name), value, event["time_ms"], event["step"])
            for event in events
            if event["event"] == "metric"
            for name, value in event["values"].items()
        ]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])

    def _end(self, client: Any, spooled: _Spooled, run_id: str, end: dict[str, Any] | None) -> None:
        from mlflow.entities import Metric

        assert spooled.begin is not None
        if end is None:  # its process is gone without a word
            client.set_terminated(run_id, "KILLED", int(spooled.path.stat().st_mtime * 1000))
            return
        ended = _milliseconds(spooled.begin["started"]) + int(end["seconds"] * 1000)
        figures = [Metric(_key(name), value, ended, 0) for name, value in end.get("metrics", {}).items()]
        for start in range(0, len(figures), 1000):
            client.log_batch(run_id, metrics=figures[start : start + 1000])
        for name in spooled.artifacts:
            path = self.spool_dir.parent.parent / name.removesuffix(".partial")
            # A file that a later run has written again is not this run's.
            if path.exists() and path.stat().st_mtime * 1000 < ended + 60_000:
                log = client.log_artifacts if path.is_dir() else client.log_artifact
                log(run_id, str(path), *([path.name] if path.is_dir() else []))
        if end.get("message"):
            client.set_tag(run_id, "mlflow.note.content", end["message"])
        client.set_terminated(run_id, "FINISHED" if end["outcome"] == "done" else "FAILED", ended)

    def _parent(self, client: Any, begin: dict[str, Any]) -> str:
        """The run of a pipeline run, found by its tag or made. A marker file remembers that it is open."""
        group = begin["group"]
        marker = self.spool_dir / f"{hashlib.sha256(group.encode()).hexdigest()[:16]}.group"
        run_id = _find_run(client, self._experiment_id, "limbeck.pipeline", group)
        if run_id is None:
            moment = datetime.fromisoformat(begin["started"]).strftime("%Y-%m-%d %H:%M:%S")
            tags = {"limbeck.pipeline": group, "limbeck.group": group}
            started = _milliseconds(begin["started"])
            run = client.create_run(
                self._experiment_id, start_time=started, tags=tags, run_name=f"{self._pipeline_name()} {moment}"
            )
            run_id = str(run.info.run_id)
        marker.write_text(json.dumps({"group": group, "run_id": run_id}), encoding="utf-8")
        return run_id

    def _pipeline_name(self) -> str:
        with suppress(OSError, yaml.YAMLError, AttributeError):
            text = (self.spool_dir.parent.parent / "params.yaml").read_text(encoding="utf-8")
            return str(yaml.safe_load(text).get("name", "pipeline"))
        return "pipeline"

    def _conclude(self, client: Any) -> None:
        self._experiment_id = self._experiment_id or _experiment(client, self.uri, self.experiment)
        waiting = {spooled.begin["group"] for spooled in self._files.values() if spooled.begin}
        for marker in self.spool_dir.glob("*.group"):
            noted = json.loads(marker.read_text(encoding="utf-8"))
            if noted["group"] in waiting:
                continue
            parent = noted["run_id"]
            children = client.search_runs([self._experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
            failed = any(child.info.status in ("FAILED", "KILLED") for child in children)
            ended = max((child.info.end_time or 0 for child in children), default=0) or None
            try:
                client.set_terminated(parent, "FAILED" if failed else "FINISHED", ended)
            except _failures() as error:
                if not _is_missing(error):
                    raise
            marker.unlink(missing_ok=True)


def _key(name: str) -> str:
    """A name as MLflow allows it for params and metrics."""
    return re.sub(r"[^\w./ :-]", "_", name)[:250]


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def replay_finished(spool_dir: Path = HOME / "spool", *, uri: str, experiment: str) -> int:
    """Send what lies in a spool folder, of whatever pipeline run; the number of runs completed. Away: 0."""
    replayer = Replayer(spool_dir, uri=uri, experiment=experiment)
    try:
        return replayer.poll()
    finally:
        replayer.close()


def replay_workspace(workspace: Path) -> int:
    """`replay_finished` for a workspace, as its params.yaml says.

    Raises:
        TrackingError: the server does not answer.

    """
    from limbeck import params

    settings = params.load(workspace / "params.yaml").tracking
    uri = tracking_uri(settings.uri, workspace)
    _require(uri)
    return replay_finished(workspace / HOME / "spool", uri=uri, experiment=settings.experiment)


def attach(files: list[Path], *, uri: str, experiment: str, group: str) -> None:
    """Put files (a rendered report) beside a pipeline run that has executed something. Away: nothing happens."""
    if not answers(uri):
        return
    with suppress(TrackingError), _asking(uri) as client:
        run_id = _find_run(client, _experiment(client, uri, experiment), "limbeck.pipeline", group)
        for file in files if run_id else []:
            client.log_artifact(run_id, str(file))


# Versions: lineage, registering, aliases


def lineage(lock: Mapping[str, Any], stage: str) -> str:
    """Digest over the dvc.lock entries of a stage and its ancestors: commands, deps, params and outs by content.

    `none` when the stage is not in the lock.
    """
    entries: Mapping[str, Any] = lock.get("stages") or {}
    owner = {out["path"]: name for name, entry in entries.items() for out in entry.get("outs", [])}
    waiting, seen = [stage] if stage in entries else [], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for dep in entries[name].get("deps", []):
            # A dep may be an out, or lie inside one.
            waiting += [owner[place] for place in owner if dep["path"] == place or dep["path"].startswith(f"{place}/")]
    if not seen:
        return "none"
    text = json.dumps({name: entries[name] for name in sorted(seen)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def git_state(folder: Path = ROOT) -> tuple[str, str]:
    """HEAD (`none` without a commit) and whether code or values differ from it (`true` or `false`).

    dvc.lock and metrics/ are what the run itself writes; they make nothing dirty.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        head = git("rev-parse", "--verify", "HEAD")
        changed = git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock", ":(exclude)metrics")
    except (OSError, subprocess.SubprocessError):
        return "none", "true"
    return head, "true" if changed else "false"


def tags_of(
    decision: Decision,
    manifest: Mapping[str, Any],
    quality: Mapping[str, Any],
    latency: Mapping[str, Any],
    *,
    lock: Path = Path("dvc.lock"),
) -> dict[str, str]:
    """A version's lineage, all of it content: what it is, what it was made from, what it measured."""
    read: Mapping[str, Any] = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    head, dirty = git_state()
    test = quality["variants"][decision.variant]["test"]
    speed = latency["variants"][decision.variant]
    return {
        "limbeck.identity": decision.identity,
        "limbeck.sha256": manifest["files"][f"{decision.variant}.onnx"]["sha256"],
        "limbeck.variant": decision.variant,
        "limbeck.target": decision.target,
        "limbeck.data": manifest["data_digest"],
        "limbeck.teacher": manifest["teacher_digest"],
        "limbeck.lineage": lineage(read, f"export@{decision.target}"),
        "limbeck.git": head,
        "limbeck.dirty": dirty,
        "limbeck.verdict": decision.verdict,
        f"limbeck.{quality['metric']}": f"{test['value']:.4f} [{test['low']:.4f}, {test['high']:.4f}]",
        "limbeck.bytes": str(speed["bytes"]),
        "limbeck.p50_ms": f"{speed['p50_ms']['value']:.4f}",
    }


@dataclass(frozen=True)
class Version:
    """A version in the registry; `is_new` when this very call made it."""

    model: str
    number: str
    is_new: bool


def _find_version(client: Any, model: str, identity: str, variant: str | None) -> str | None:
    found = client.search_model_versions(f"name = '{model}' and tags.`limbeck.identity` = '{identity}'")
    numbers = [v.version for v in found if variant is None or v.tags.get("limbeck.variant") == variant]
    return str(max(numbers, key=int)) if numbers else None


def is_registered(name: str, identity: str, *, uri: str, variant: str | None = None) -> bool:
    """Whether a model has a version of this content (and variant, when given).

    A server that does not answer counts as having it: registering again could only fail, and whoever asks in
    order to register would go round in circles.
    """
    if not answers(uri):
        return True
    try:
        with _asking(uri) as client:
            return _find_version(client, name, identity, variant) is not None
    except TrackingError:
        return True


def register(
    model: str,
    exported: Path,
    manifest: Mapping[str, Any],
    variant: str,
    *,
    tags: Mapping[str, str],
    report: Report,
    uri: str,
    experiment: str,
) -> Version:
    """Make the chosen file a version of `model`, unless its content is one; point `candidate` at the newest.

    The version is created with its identity in the same transaction: a kill before leaves a logged model that
    nothing points to, a kill after leaves the version to be found. Beside the model lie the exported files as
    they are, golden vectors and manifest.

    Args:
        model: name of the registered model.
        exported: folder of the exported files.
        manifest: theirs.
        variant: which of them ships.
        tags: see `tags_of`; `limbeck.identity` and `limbeck.variant` say whether it is there already.
        report: of the running stage, whose run this becomes part of.
        uri: the tracking server.
        experiment: its experiment.

    Raises:
        TrackingError: the server does not answer, or fails.

    """
    _require(uri, LATER)
    with _asking(uri) as client:
        number = _find_version(client, model, tags["limbeck.identity"], variant)
        is_new = number is None
        if number is None:
            try:
                client.create_registered_model(model)
            except _failures() as error:
                if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment_id = _experiment(client, uri, experiment)
            run_id = _own_run(client, experiment_id, report)
            # Made here, not by `log_model`: that one would put it into the experiment `Default`.
            model_id = client.create_logged_model(experiment_id, "model", source_run_id=run_id).model_id
            source = _log_model(uri, run_id, model_id, exported, manifest, variant)
            number = str(client.create_model_version(model, source, run_id, tags=dict(tags), model_id=model_id).version)
        newest = _alias(client, model, CANDIDATE)
        if newest is None or int(newest.version) < int(number):
            client.set_registered_model_alias(model, CANDIDATE, number)
        return Version(model, number, is_new)


def _own_run(client: Any, experiment_id: str, report: Report) -> str:
    """The run of the register stage itself; the replayer finds it by its tag and completes it."""
    found = _find_run(client, experiment_id, "limbeck.spool", report.spool.name)
    if found:
        return found
    tags = {"limbeck.spool": report.spool.name, "limbeck.group": report.group, "limbeck.stage": report.stage}
    started = int(report.started.timestamp() * 1000)
    return str(client.create_run(experiment_id, start_time=started, tags=tags, run_name=report.stage).info.run_id)


def _log_model(uri: str, run_id: str, model_id: str, exported: Path, manifest: Mapping[str, Any], variant: str) -> str:
    """Fill a logged model: ONNX, signature, input example, and the exported files as they are. Where it is."""
    from importlib.metadata import version

    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    network = onnx.load(str(exported / f"{variant}.onnx"))

    def schema(values: Any) -> Schema:
        """As the file itself says; a dimension without a number is the batch."""
        tensors = []
        for value in values:
            kind = value.type.tensor_type
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
            tensors.append(TensorSpec(dtype, shape, value.name))
        return Schema(tensors)

    vectors = next(name for name in manifest["files"] if name.endswith(".npz"))
    inputs, _ = golden.read(exported / vectors, variant)
    variants = [f"{candidate}.onnx" for candidate in CANDIDATES if f"{candidate}.onnx" in manifest["files"]]
    mlflow.set_tracking_uri(uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logged = mlflow.onnx.log_model(
            network,
            run_id=run_id,
            model_id=model_id,
            signature=ModelSignature(schema(network.graph.input), schema(network.graph.output)),
            input_example=inputs[:2],
            pip_requirements=[f"{package}=={version(package)}" for package in ("numpy", "onnx", "onnxruntime")],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            extra_files=[str((exported / name).resolve()) for name in (*variants, vectors, manifest_file.NAME)],
        )
    return str(logged.model_uri)


def _alias(client: Any, model: str, alias: str) -> Any:
    try:
        return client.get_model_version_by_alias(model, alias)
    except _failures() as error:
        if not _is_missing(error):
            raise
        return None


def _fetch(client: Any, uri: str, version: Any, name: str, into: Path) -> Path:
    """Download a file of a version's bundle."""
    import mlflow

    place = client.get_model_version_download_uri(version.name, version.version)
    # Progress bars of single files are noise.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    found = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{place.rstrip('/')}/{BUNDLE}/{name}", dst_path=str(into), tracking_uri=uri
    )
    return Path(found)


def _fetch_model(client: Any, uri: str, version: Any, into: Path) -> Path:
    """Download the file that a version ships, held against its digest."""
    file = _fetch(client, uri, version, f"{version.tags['limbeck.variant']}.onnx", into)
    expected, found = version.tags["limbeck.sha256"], sha256(file)
    if found != expected:
        raise TrackingError(
            f"version {version.version} of {version.name} came back with sha256 {found[:16]}..., registered was "
            f"{expected[:16]}...; its artifact was changed or cut short. Register it again."
        )
    return file


def fetch(model: str, alias: str, into: Path, *, uri: str) -> tuple[str, Path]:
    """Download the ONNX file that an alias points to, the very bytes that were exported; its version and the file.

    Raises:
        TrackingError: the server does not answer or fails, there is no such alias, or the file is damaged.

    """
    _require(uri)
    with _asking(uri) as client:
        version = _alias(client, model, alias)
        if version is None:
            raise TrackingError(f"{model} has no version with the alias {alias!r} at {uri}; register one first.")
        return str(version.version), _fetch_model(client, uri, version, into)


def versions(model: str, *, uri: str) -> list[str]:
    """A line per version that has an alias, champion first.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    _require(uri)
    by_version: dict[str, list[str]] = {}
    with _asking(uri) as client:
        for alias in (CHAMPION, CANDIDATE, PREVIOUS):
            if (found := _alias(client, model, alias)) is not None:
                by_version.setdefault(str(found.version), []).append(alias)
    return [f"{model} version {number}: {', '.join(aliases)}" for number, aliases in by_version.items()]


@dataclass(frozen=True)
class Promotion:
    """Whether the champion moved, and why or why not."""

    moved: bool
    why: str


def promote(
    version: Version,
    file: Path,
    manifest: Mapping[str, Any],
    *,
    scores_of: Callable[[Path], Scores],
    measure: MeasureParams,
    margin: float,
    uri: str,
    ledger_file: Path,
) -> Promotion:
    """Make a version the champion when it is not worse than the present one by more than a margin.

    Both files answer the same test split, now and here. The old champion becomes `previous`; the ledger records
    the move. A move that was cut off before the ledger had it is recorded by the next call.

    Args:
        version: the challenger.
        file: its ONNX file.
        manifest: its manifest; a champion with other classes or another input cannot be compared and stays.
        scores_of: an ONNX file's scores per test sample [N].
        measure: resamples and seed of the interval that the ledger shows.
        margin: by how much the challenger's mean score may be lower.
        uri: the tracking server.
        ledger_file: see `limbeck.ledger`.

    Raises:
        TrackingError: the server does not answer or fails, or the champion's file is damaged.

    """
    _require(uri, LATER)
    model, number = version.model, version.number
    with _asking(uri) as client:
        champion = _alias(client, model, CHAMPION)
        before = None if champion is None else str(champion.version)
        if before == number:
            _mend_ledger(client, model, number, ledger_file)
            return Promotion(False, f"version {number} is the champion")
        if champion is None:
            why = "the first champion"
        else:
            may_move, why = _compare(client, uri, champion, number, file, manifest, scores_of, measure, margin)
            if not may_move:
                return Promotion(False, why)
            client.set_registered_model_alias(model, PREVIOUS, before)
        client.set_registered_model_alias(model, CHAMPION, number)
        _record(ledger_file, model, before, number, why)
        return Promotion(True, why)


def _compare(
    client: Any,
    uri: str,
    champion: Any,
    number: str,
    file: Path,
    manifest: Mapping[str, Any],
    scores_of: Callable[[Path], Scores],
    measure: MeasureParams,
    margin: float,
) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory() as folder:
        theirs = json.loads(_fetch(client, uri, champion, manifest_file.NAME, Path(folder)).read_text(encoding="utf-8"))
        for key in ("classes", "input"):
            if theirs[key] != manifest[key]:
                return False, (
                    f"champion {champion.version} has other {key} than version {number}, so the two cannot be "
                    "compared; move the alias `champion` by hand if the new one is meant to replace it"
                )
        new = scores_of(file)
        old = scores_of(_fetch_model(client, uri, champion, Path(folder)))
    difference = paired_difference(new, old, measure.bootstrap, measure.seed)
    figures = (
        f"version {number} scores {new.mean():.4f} on this test split, champion {champion.version} {old.mean():.4f} "
        f"({difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}])"
    )
    if difference["value"] >= -margin - 1e-12:  # exactly the margin is within it
        return True, f"{figures}; it may be {margin:g} lower"
    return False, f"{figures}; it may be {margin:g} lower, so the champion stays"


def _record(file: Path, model: str, before: str | None, number: str, why: str) -> None:
    ledger.append(file, ledger.now(model=model, alias=CHAMPION, previous=before, version=number, why=why))


def _mend_ledger(client: Any, model: str, number: str, file: Path) -> None:
    last = next((entry for entry in reversed(ledger.read(file)) if entry.model == model), None)
    if last is None or last.version != number:
        previous = _alias(client, model, PREVIOUS)
        why = "found in place: moved elsewhere, or by a run that was cut off before it wrote here"
        _record(file, model, None if previous is None else str(previous.version), number, why)


# What the registry holds, told to a person


@dataclass(frozen=True)
class Story:
    """Lines about registered versions, and a champion's answers drawn as text."""

    versions: list[str]
    samples: str


def story(
    workspace: Path, draw: Callable[[NDArray[Any], list[str]], str] | None = None, *, num_samples: int = 3
) -> Story:
    """The versions of every target, and the first champion found, answering test samples beside its teacher.

    A registry that is away or fails is a line of its own.

    Args:
        workspace: the folder with params.yaml.
        draw: turns images [N, H, W, C] and their captions into text; without it, or without small images, no samples.
        num_samples: how many, each of another class.

    """
    from limbeck import params

    values = params.load(workspace / "params.yaml")
    uri = tracking_uri(values.tracking.uri, workspace)
    lines: list[str] = []
    samples = ""
    try:
        for target in values.targets:
            model = f"{values.name}-{target}"
            found = versions(model, uri=uri)
            lines += found
            if draw and not samples and any(CHAMPION in line for line in found):
                with tempfile.TemporaryDirectory() as folder:
                    _, file = fetch(model, CHAMPION, Path(folder), uri=uri)
                    samples = _samples(workspace, target, file, draw, num_samples)
    except TrackingError as error:
        lines.append(str(error))
    return Story(lines, samples)


def _samples(
    workspace: Path, target: str, file: Path, draw: Callable[[NDArray[Any], list[str]], str], num_samples: int
) -> str:
    from limbeck.edge.measure import open_session

    places = [workspace / name for name in ("data/test/x.npy", "data/test/y.npy", "data/meta.json")]
    teacher = workspace / "export" / target / "teacher.onnx"
    if not all(place.exists() for place in (*places, teacher)):
        return ""
    x, y = (np.load(place, mmap_mode="r") for place in places[:2])
    if x.ndim != 4 or max(x.shape[1:3]) > 32:
        return ""
    classes = json.loads(places[2].read_text(encoding="utf-8"))["classes"]
    firsts = np.unique(y, return_index=True)[1]
    picked = firsts[:: max(1, len(firsts) // num_samples)][:num_samples]
    images = np.ascontiguousarray(x[picked])
    said = [open_session(path, 1).run(None, {"input": images})[0].argmax(1) for path in (file, teacher)]
    captions = [
        f"champion {classes[ours]}\nteacher  {classes[theirs]}\ntruth    {classes[truth]}"
        for ours, theirs, truth in zip(*said, y[picked], strict=True)
    ]
    return draw(images, captions)

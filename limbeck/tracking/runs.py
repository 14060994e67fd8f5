"""Runs: from the spool files of stages to MLflow, live or after the fact."""

import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import psutil
import yaml

from limbeck import pictures
from limbeck.errors import TrackingError
from limbeck.params import check_tracking_uri, load
from limbeck.recording import HOME
from limbeck.tracking.server import (
    answers,
    asking,
    experiment_of,
    failures,
    find_run,
    is_missing,
    mark_away,
    open_client,
    require,
    tracking_uri,
)


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
        try:
            client = open_client(self.uri)
            self._experiment_id = self._experiment_id or experiment_of(client, self.uri, self.experiment)
            return sum(self._try(client, file) for file in files)
        except failures() as error:
            mark_away(self.uri)
            logging.getLogger(__name__).warning("runs stay spooled: %s", error)
            return 0

    def close(self) -> None:
        """Give every parent run whose stages are all told its final status, and let go of the folder."""
        try:
            if any(self.spool_dir.glob("*.group")) and self._is_sole() and answers(self.uri):
                self._conclude(open_client(self.uri))
        except failures() as error:
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
        except failures() as error:
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
        spooled.artifacts += [event["path"] for event in events if event["event"] == "artifact"]
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
        run_id = find_run(client, self._experiment_id, "limbeck.spool", name)
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
                for picture, figure in _drawn(path):
                    client.log_figure(run_id, figure, picture)
        if end.get("message"):
            client.set_tag(run_id, "mlflow.note.content", end["message"])
        client.set_terminated(run_id, "FINISHED" if end["outcome"] == "done" else "FAILED", ended)

    def _parent(self, client: Any, begin: dict[str, Any]) -> str:
        """The run of a pipeline run, found by its tag or made. A marker file remembers that it is open."""
        group = begin["group"]
        marker = self.spool_dir / f"{hashlib.sha256(group.encode()).hexdigest()[:16]}.group"
        run_id = find_run(client, self._experiment_id, "limbeck.pipeline", group)
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
        self._experiment_id = self._experiment_id or experiment_of(client, self.uri, self.experiment)
        waiting = {spooled.begin["group"] for spooled in self._files.values() if spooled.begin}
        for marker in self.spool_dir.glob("*.group"):
            noted = json.loads(marker.read_text(encoding="utf-8"))
            if noted["group"] in waiting:
                continue
            parent = noted["run_id"]
            children = client.search_runs([self._experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
            # A stage that was killed and then ran well has not failed.
            last = {child.data.tags.get("limbeck.stage"): child for child in sorted(children, key=_start_of)}
            failed = any(child.info.status in ("FAILED", "KILLED") for child in last.values())
            ended = max((child.info.end_time or 0 for child in children), default=0) or None
            try:
                client.set_terminated(parent, "FAILED" if failed else "FINISHED", ended)
            except failures() as error:
                if not is_missing(error):
                    raise
            marker.unlink(missing_ok=True)


def _key(name: str) -> str:
    """A name as MLflow allows it for params and metrics."""
    return re.sub(r"[^\w./ :-]", "_", name)[:250]


def _drawn(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and figure of what a stage's CSV shows: curves by epoch, or answers of each shipped file."""
    if path.suffix != ".csv":
        return
    with path.open(encoding="utf-8") as stream:
        columns = stream.readline().rstrip("\n").split(",")
    if columns[0] == "actual":
        for column in columns[1:]:
            yield f"confusion {column}.png", pictures.confusion(path, column)
    elif "epoch" in columns:
        yield "training.png", pictures.training({"": path})


def _start_of(run: Any) -> int:
    return int(run.info.start_time)


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
    settings = load(workspace / "params.yaml").tracking
    uri = tracking_uri(settings.uri, workspace)
    require(uri)
    return replay_finished(workspace / HOME / "spool", uri=uri, experiment=settings.experiment)


def attach(files: list[Path], *, uri: str, experiment: str, group: str) -> None:
    """Put files (a rendered report) beside a pipeline run that has executed something. Away: nothing happens."""
    if not answers(uri):
        return
    with suppress(TrackingError), asking(uri) as client:
        run_id = find_run(client, experiment_of(client, uri, experiment), "limbeck.pipeline", group)
        for file in files if run_id else []:
            client.log_artifact(run_id, str(file))

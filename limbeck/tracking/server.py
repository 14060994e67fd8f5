"""Reaching the tracking server: where it is, whether it answers, a client whose failures are one error."""

import fcntl
import json
import logging
import os
import socket
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from limbeck.errors import TrackingError
from limbeck.params import check_tracking_uri

ROOT = Path(__file__).resolve().parents[2]
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


def mark_away(uri: str) -> None:
    """Take a server that has just failed for away, for half a minute."""
    _known[uri] = (False, time.monotonic() + REMEMBER_S)


def shown(uri: str) -> str:
    """An address without its user and password: what may stand in a message."""
    parts = urlsplit(uri)
    return uri if parts.password is None else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def require(uri: str, next_step: str = "Repeat the command when it does") -> None:
    """Raise a TrackingError that names `next_step` unless the server answers."""
    if not answers(uri):
        raise TrackingError(
            f"the tracking server at {shown(uri)} does not answer. {next_step}, or set MLFLOW_TRACKING_URI to another one."
        )


_importing = threading.Lock()
_set_up: set[str] = set()


@contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    """Keep other processes from a SQLite file: two that make its tables at once leave it broken."""
    if not uri.startswith(SQLITE):
        yield
        return
    with Path(f"{uri.removeprefix(SQLITE)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_client(uri: str) -> Any:
    """A client of MLflow, imported here and now, silent and with short patience."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with _importing, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations between MLflow and its libraries
        import mlflow

        for name in ("alembic", "mlflow.store.db.utils", "mlflow.utils.environment"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if uri not in _set_up:
            with _alone_with(uri):
                fresh = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
                fresh.search_experiments(max_results=1)  # a store makes its tables when it is first asked
                fresh.search_registered_models(max_results=1)
            _set_up.add(uri)
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when the server, the way to it or its database fails."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: a database's driver is missing. JSONDecodeError: it is not MLflow that answers.
    return (MlflowException, RequestException, SQLAlchemyError, ImportError, json.JSONDecodeError)


@contextmanager
def asking(uri: str) -> Iterator[Any]:
    """A client; whatever it fails with is a `TrackingError`."""
    try:
        yield open_client(uri)
    except failures() as error:
        forget(uri)
        said = str(error).replace(uri, shown(uri))
        raise TrackingError(
            f"the tracking server at {shown(uri)} failed: {said}. The same command goes on later."
        ) from error


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that what was asked for is not there."""
    # An alias that does not exist is INVALID_PARAMETER_VALUE on some stores.
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def experiment_of(client: Any, uri: str, name: str) -> str:
    """The experiment's id. With a database and no server its artifacts lie in `mlruns` beside the database."""
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None
        if not uri.startswith("http"):
            file = uri.removeprefix(SQLITE)
            place = ((Path(file).parent if uri.startswith(SQLITE) else ROOT) / "mlruns").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except failures() as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def find_run(client: Any, experiment_id: str, tag: str, value: str) -> str | None:
    """The id of a run that carries a tag, if there is one."""
    found = client.search_runs([experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
    return str(found[0].info.run_id) if found else None

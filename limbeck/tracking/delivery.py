"""An MLflow server as the place that devices fetch from: metadata and bundles in its artifact store.

    experiment `limbeck-metadata`   METADATA = <id>/tuf: the metadata files; a run whose parameters are the turns
    experiment NAME                 one run per bundle of that model
    experiment `limbeck-reports`    what devices tell, where they were provisioned to

A device's account reads the first two, writes the third and sees nothing else. MLflow has no lock that it would lend: a run's
parameter, which is written once and never changed, is one. Whoever writes `turn.7` first has the turn until
`turn.7.over` is there.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from limbeck.errors import PublishingError, TrackingError
from limbeck.tracking.server import asking, failures, find_run, require, shown

METADATA, REPORTS = "limbeck-metadata", "limbeck-reports"
PURPOSE, BUNDLE = "limbeck.delivers", "limbeck.bundle"
PROXIED = "mlflow-artifacts:/"
ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
MAX_REPORT_BYTES = 64_000
"""What a device tells at once has a few thousand."""
MAX_BUNDLES = 10_000
"""Of one model, the newest."""

LEASE_S = 120.0
"""After so long a turn that nobody ended is over: its publisher was killed on another machine."""
WRITE_UNTIL_S = 60.0
"""No write begins later in a turn; a request and its retry end well before the lease does."""
PATIENCE_S = 300.0


class Server:
    """See `limbeck.publishing.places.Place`.

    Args:
        uri: the tracking server.

    Raises:
        PublishingError: it is no server but a database.
        TrackingError: it does not answer, or fails.

    """

    def __init__(self, uri: str) -> None:
        if not uri.startswith(("http://", "https://")):
            raise PublishingError(
                f"devices fetch from an MLflow server, and {shown(uri)} is none. Start one (`make ui`) and set "
                "MLFLOW_TRACKING_URI=http://127.0.0.1:5000 or --uri; or publish into a folder, for a stick: --folder."
            )
        require(uri)
        self.uri, self.name = uri, shown(uri).rstrip("/")
        self.server: str | None = self.name
        self._lease: float | None = None
        with asking(uri) as client:
            self._client = client
            experiment_id, location = self._experiment(METADATA, METADATA)
            self._turns = find_run(client, experiment_id, PURPOSE, METADATA) or ""
        self.metadata = f"{location.removeprefix(PROXIED)}/tuf"

    def _experiment(self, name: str, purpose: str) -> tuple[str, str]:
        """Id and artifact location of an experiment of ours; made whole under another name, then renamed.

        Raises:
            PublishingError: there is one of this name that is something else.

        """
        client = self._client
        found = client.get_experiment_by_name(name)
        if found is None:
            made = self._fresh_experiment(name, purpose)
            try:
                client.rename_experiment(made, name)
            except failures():
                client.delete_experiment(made)  # another publisher was first, or the name is taken by a deleted one
            found = client.get_experiment_by_name(name)
        if found is None or found.tags.get(PURPOSE) != purpose or found.lifecycle_stage != "active":
            raise PublishingError(
                f"the experiment {name!r} at {shown(self.uri)} was not made for delivery, or was deleted; what devices may "
                "read needs one of its own. Rename it (or restore it) in MLflow, then repeat."
            )
        return str(found.experiment_id), str(found.artifact_location).rstrip("/")

    def _fresh_experiment(self, name: str, purpose: str) -> str:
        client, temporary = self._client, f"{name}-{uuid.uuid4().hex}"
        made = str(client.create_experiment(temporary, tags={PURPOSE: purpose}))
        if not client.get_experiment(made).artifact_location.startswith(PROXIED):
            # A server that was told to keep artifacts elsewhere serves what lies at this address all the same.
            client.delete_experiment(made)
            made = str(client.create_experiment(f"{temporary}-", f"{PROXIED}{name}", tags={PURPOSE: purpose}))
        if purpose == METADATA:
            client.create_run(made, tags={PURPOSE: METADATA}, run_name="turns")
        return made

    def _request(self, method: str, path: str = "", **more: Any) -> Any:
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        with asking(self.uri):
            return http_request(get_default_host_creds(self.uri), f"{ROUTE}{path}", method, **more)

    def _refuse(self, response: Any, what: str) -> None:
        if response.status_code >= 400:
            hint = {401: "; check MLFLOW_TRACKING_USERNAME and _PASSWORD", 403: "; this account may not do that"}
            raise TrackingError(
                f"{self.name} answered {response.status_code} to {what}{hint.get(response.status_code, '')}. It has to "
                "serve artifacts (`mlflow server` does, unless --no-serve-artifacts). The same command goes on later."
            )

    def _get(self, path: str) -> bytes | None:
        response = self._request("GET", f"/{quote(path)}")
        if response.status_code == 404:
            return None
        self._refuse(response, f"GET {path}")
        return bytes(response.content)

    def _put(self, path: str, content: bytes) -> None:
        self._refuse(self._request("PUT", f"/{quote(path)}", data=content), f"PUT {path}")

    def _list(self, folder: str) -> list[dict[str, Any]]:
        response = self._request("GET", params={"path": folder})
        self._refuse(response, f"list {folder}")
        found: list[dict[str, Any]] = response.json().get("files", [])
        return found

    def _sizes(self, folder: str) -> dict[str, int]:
        return {Path(file["path"]).name: int(file.get("file_size", -1)) for file in self._list(folder)}

    @cached_property
    def _reports(self) -> str:
        with asking(self.uri):
            _, location = self._experiment(REPORTS, REPORTS)
        return f"{location.removeprefix(PROXIED)}/reports"

    def reports(self) -> str:
        """See `Place`."""
        return self._reports

    def reporters(self) -> list[str]:
        """See `Place`."""
        return [Path(entry["path"]).name for entry in self._list(self._reports) if entry.get("is_dir")]

    def told(self, reporter: str) -> list[str]:
        """See `Place`."""
        sizes = self._sizes(f"{self._reports}/{reporter}")
        return [name for name, size in sizes.items() if 0 < size <= MAX_REPORT_BYTES]

    def hear(self, reporter: str, name: str) -> bytes | None:
        """See `Place`."""
        path, content = f"{self._reports}/{reporter}/{name}", b""
        with asking(self.uri), self._request("GET", f"/{quote(path)}", stream=True) as response:
            if response.status_code == 404:
                return None
            self._refuse(response, f"GET {path}")
            for piece in response.iter_content(MAX_REPORT_BYTES):  # its length is what the server says, not what comes
                content += piece
                if len(content) > MAX_REPORT_BYTES:
                    return None
        return content

    def names(self) -> list[str]:
        """See `Place`."""
        return sorted(self._sizes(self.metadata))

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        return self._get(f"{self.metadata}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        assert self._lease is not None, "metadata are written during a turn"
        if time.monotonic() > self._lease + WRITE_UNTIL_S:
            raise PublishingError(
                f"this turn took longer than {WRITE_UNTIL_S:.0f} s, so another publisher may have begun; nothing of it is "
                "visible to devices. Repeat the command."
            )
        self._put(f"{self.metadata}/{name}", content)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Place`. Of a publisher that was killed on this machine the turn is over at once, elsewhere after LEASE_S.

        Raises:
            TrackingError: others kept at it for too long.

        """
        own = json.dumps({**_this_process(), "token": uuid.uuid4().hex})
        began = since = time.monotonic()
        watched = 0
        while True:
            with asking(self.uri) as client:
                said = client.get_run(self._turns).data.params
                last = max((int(key.split(".")[1]) for key in said), default=0)
                if last == 0 or f"turn.{last}.over" in said:
                    self._lease = time.monotonic()
                    if self._write_once(f"turn.{last + 1}", own):
                        break
                    continue
                if last != watched:
                    watched, since = last, time.monotonic()
                holder = json.loads(said[f"turn.{last}"])
                if _is_gone(holder) or time.monotonic() > since + LEASE_S:
                    self._write_once(f"turn.{last}.over", "its publisher is gone")
                    continue
            if time.monotonic() > began + PATIENCE_S:
                raise TrackingError(
                    f"{holder['host']} (process {holder['pid']}) is still publishing to {self.name}. Repeat the command."
                )
            time.sleep(0.2)
        try:
            yield
        finally:
            self._lease = None
            with suppress(TrackingError), asking(self.uri):  # what was written stands; the next one finds us gone
                self._write_once(f"turn.{last + 1}.over", "done")

    def _write_once(self, key: str, value: str) -> bool:
        """Write a parameter that nobody wrote before; whether we were the one."""
        try:
            self._client.log_param(self._turns, key, value)
        except failures() as error:
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            return False
        return True

    def keep(self, model: str, digest: str, bundle: Path) -> str:
        """See `Place`."""
        with asking(self.uri) as client:
            experiment_id, location = self._experiment(model, model)
            run_id = find_run(client, experiment_id, BUNDLE, digest)
            if run_id is None:
                run_id = str(client.create_run(experiment_id, tags={BUNDLE: digest}, run_name=digest[:16]).info.run_id)
        path = f"{location.removeprefix(PROXIED)}/{run_id}/artifacts/bundle"
        present = self._sizes(path)
        for file in sorted(bundle.iterdir()):
            content = file.read_bytes()
            # An upload that was torn may have left the right size with another content.
            if present.get(file.name) != len(content) or self._get(f"{path}/{file.name}") != content:
                self._put(f"{path}/{file.name}", content)
        with asking(self.uri) as client:
            client.set_terminated(run_id)
        return path

    def kept(self, model: str) -> set[str]:
        """See `Place`. It makes no experiment where nothing was published."""
        with asking(self.uri) as client:
            found = client.get_experiment_by_name(model)
            if found is None or found.tags.get(PURPOSE) != model:
                return set()
            runs = client.search_runs([found.experiment_id], max_results=MAX_BUNDLES)
        return {run.data.tags[BUNDLE][:16] for run in runs if BUNDLE in run.data.tags}

    def fetch(self, artifacts: str, name: str) -> bytes:
        """See `Place`."""
        content = self._get(f"{artifacts}/{name}")
        if content is None:
            raise PublishingError(f"{artifacts}/{name} is missing at {self.name}; publish that version again.")
        return content


def _this_process() -> dict[str, Any]:
    return {
        "host": _host(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _host() -> str:
    """One boot of this machine: two containers may have the same name."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes() + os.readlink("/proc/self/ns/pid").encode()
        return f"{socket.gethostname()}-{sha256(boot).hexdigest()[:8]}"
    return socket.gethostname()


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended. What happens elsewhere is not known."""
    if holder["host"] != _host():
        return False
    try:
        return bool(abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) > 1)
    except psutil.NoSuchProcess:
        return True

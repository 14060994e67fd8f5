"""Bytes from the server or from a stick, with resume, caps and patience; what arrives is not trusted yet."""

import contextlib
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from limbeck.edge import EdgeError
from limbeck.edge.bundle import File
from limbeck.edge.manifest import sha256

CHUNK_BYTES = 65_536
MAX_ACKNOWLEDGEMENT_BYTES = 10_000
Found = TypeVar("Found")


@dataclass(frozen=True)
class Patience:
    """How long a device waits for whom, in seconds.

    Attributes:
        connect_s: for a connection.
        read_s: between two bytes.
        headers_s: for an answer's head as a whole, which may come byte by byte.
        grace_s: after which an answer has to have come at `min_bytes_per_s` on average.
        min_bytes_per_s: slower than that and it is given up, to be resumed.
        attempts: in a row that bring nothing.
        base_s: the first pause lasts up to that, each next one up to twice as long.
        most_s: no pause is longer; a server that asks for more is left alone until another update.
    """

    connect_s: float = 10.0
    read_s: float = 20.0
    headers_s: float = 30.0
    grace_s: float = 30.0
    min_bytes_per_s: float = 200.0
    attempts: int = 5
    base_s: float = 1.0
    most_s: float = 60.0

    def times(self, factor: float) -> "Patience":
        """Waits and pauses so many times as long, at least a hundredth; attempts and the least speed stay."""
        waits = {f.name: getattr(self, f.name) * max(factor, 0.01) for f in fields(self) if f.name.endswith("_s")}
        return replace(self, **{**waits, "min_bytes_per_s": self.min_bytes_per_s})


class Absent(EdgeError):
    """The source does not have it, or not for us."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(EdgeError):
    """Try again; the server may have said when."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooMuch(EdgeError):
    """More bytes came than were announced."""


class Source(Protocol):
    """Where metadata and artifacts lie."""

    metadata: str
    artifacts: str
    patience: Patience

    def open(self, place: str, start: int = 0) -> tuple[int, Generator[bytes, None, None]]:
        """The bytes of a place from `start` on, or from 0 when the source cannot skip; with where they start."""


class Folder:
    """A stick: `limbeck publish NAME --folder STICK`."""

    metadata, artifacts = "metadata", "artifacts"
    patience = Patience(attempts=1)

    def __init__(self, path: Path) -> None:
        self._path = path
        if not (path / self.metadata).is_dir():
            raise EdgeError(f"{path / self.metadata} is missing; expected what `limbeck publish NAME --folder` writes.")

    def open(self, place: str, start: int = 0) -> tuple[int, Generator[bytes, None, None]]:
        """See `Source`."""
        try:
            stream = (self._path / inside(place)).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise Absent(f"{self._path / place} is missing; the stick was not written to its end.", 404) from None
        stream.seek(start)

        def chunks() -> Generator[bytes, None, None]:
            with stream:
                try:
                    while chunk := stream.read(CHUNK_BYTES):
                        yield chunk
                except OSError as error:  # pulled out
                    raise Unavailable(f"{self._path / place} cannot be read: {error.strerror}.") from None

        return start, chunks()


class Server:
    """MLflow's artifact store, by plain HTTP.

    Args:
        address: of the server, as `http://host:5000`.
        metadata: path of the metadata below the artifact root.
        credentials: name and password of the device's account.
        patience: how long to wait for it.
    """

    ROOT = "api/2.0/mlflow-artifacts/artifacts"
    artifacts = ""

    def __init__(
        self,
        address: str,
        metadata: str,
        *,
        credentials: tuple[str, str] | None = None,
        patience: Patience = Patience(),
    ) -> None:
        import urllib3

        self.metadata, self.patience = metadata.strip("/"), patience
        self._address = address.rstrip("/")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "limbeck-edge"}
        if credentials:
            self._headers |= urllib3.make_headers(basic_auth=":".join(credentials))
        self._pool = _pool(self._address, patience)

    def _request(self, method: str, place: str, **options: Any) -> Any:
        import urllib3

        url = f"{self._address}/{self.ROOT}/{quote(str(inside(place)))}"
        headers = {**self._headers, **options.pop("headers", {})}
        try:
            answer = self._pool.request(method, url, headers=headers, preload_content=False, **options)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: sent on to what is no URL
            raise Unavailable(f"{url} does not answer: {_cause(error)}.") from None
        if answer.status in (401, 403, 404):
            answer.release_conn()
            advice = {
                401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to the device's account",
                403: f"let the device's account {'edit' if method == 'PUT' else 'read'} the experiment",
                404: "publish it, or provision the device with another path",
            }
            raise Absent(f"{url} answers {answer.status} {answer.reason}; {advice[answer.status]}.", answer.status)
        if answer.status >= 400 and answer.status != 416:
            asked = answer.headers.get("Retry-After")
            answer.release_conn()
            raise Unavailable(f"{url} answers {answer.status} {answer.reason}.", _seconds(asked))
        return answer

    def open(self, place: str, start: int = 0) -> tuple[int, Generator[bytes, None, None]]:
        """See `Source`."""
        answer = self._request("GET", place, headers={"Range": f"bytes={start}-"} if start else {})
        if answer.status == 416:  # there is no more than we have
            answer.release_conn()
            return start, _nothing()
        skips = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        return start if skips else 0, self._chunks(answer, place)

    def _chunks(self, answer: Any, place: str) -> Generator[bytes, None, None]:
        import urllib3

        started, received = time.monotonic(), 0
        try:
            # read1 returns what is there: read would wait for a whole chunk, however slowly it comes
            while chunk := answer.read1(CHUNK_BYTES):
                yield chunk
                received += len(chunk)
                waited = time.monotonic() - started
                if waited > self.patience.grace_s and received < waited * self.patience.min_bytes_per_s:
                    raise Unavailable(f"{place} comes too slowly: {received:,} bytes in {waited:.0f} s.")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"{place} broke off after {received:,} bytes: {_cause(error)}.") from None
        finally:
            answer.close()

    def put(self, place: str, content: bytes) -> None:
        """Upload; returns once the server has acknowledged.

        Raises:
            Absent: it will not have it.
            Unavailable: it could not take it now.
        """
        import json

        import urllib3

        answer = self._request("PUT", place, body=content)
        try:
            said = answer.read(MAX_ACKNOWLEDGEMENT_BYTES)
            acknowledged = answer.status == 200 and (not said or isinstance(json.loads(said), dict))
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError):
            acknowledged = False  # the page of a hotel's network, say
        if acknowledged:
            answer.release_conn()
        else:
            answer.close()
            raise Unavailable(f"the server answered {answer.status} to {place}, and did not acknowledge it.")


def _nothing() -> Generator[bytes, None, None]:
    yield from ()


def inside(place: str) -> PurePosixPath:
    """A path that stays below its root.

    Raises:
        EdgeError: it leads out.
    """
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise EdgeError(f"{place!r} leads out of the artifact store; it cannot be trusted.")
    return path


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now; it may be a date."""
    if retry_after is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None


def _pool(address: str, patience: Patience) -> Any:
    """A pool whose answers' heads have to come in time; a socket's own timeout begins anew with every byte."""
    import urllib3
    from urllib3 import connection, connectionpool

    class Bounded:
        sock: socket.socket

        def getresponse(self) -> Any:
            held, late = self.sock, threading.Event()
            timer = threading.Timer(patience.headers_s, _hang_up, [held, late])
            timer.daemon = True
            timer.start()
            try:
                found = super().getresponse()  # type: ignore[misc]
            finally:
                timer.cancel()
            if late.is_set():  # http.client takes a head that breaks off for a whole one
                raise TimeoutError(f"no head within {patience.headers_s:g} s")
            return found

    class Http(connectionpool.HTTPConnectionPool):
        ConnectionCls = type("Connection", (Bounded, connection.HTTPConnection), {})

    class Https(connectionpool.HTTPSConnectionPool):
        ConnectionCls = type("Connection", (Bounded, connection.HTTPSConnection), {})

    settings = {
        "timeout": urllib3.Timeout(connect=patience.connect_s, read=patience.read_s),
        "retries": urllib3.Retry(total=None, connect=0, read=0, redirect=3, status=0, other=0, raise_on_status=False),
    }
    pool = _manager(address, settings)
    pool.pool_classes_by_scheme = {"http": Http, "https": Https}
    return pool


def _manager(address: str, settings: dict[str, Any]) -> Any:
    import urllib.request

    import urllib3

    parts = urllib3.util.parse_url(address)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise EdgeError(f"server is {address!r} in device.json; expected http://HOST:PORT or https://HOST.")
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.host):
        return urllib3.ProxyManager(proxy, **settings)
    return urllib3.PoolManager(**settings)


def _hang_up(held: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        # not SSLSocket's own, which would pull the rug from under the reading thread
        socket.socket.shutdown(held, socket.SHUT_RDWR)


def persist(action: Callable[[], Found], patience: Patience, *, advanced: Callable[[], bool] = lambda: False) -> Found:
    """Repeat what is unavailable, with pauses drawn at random so that a fleet does not knock in step.

    Args:
        action: what to do; repeated when it raises `Unavailable`.
        patience: attempts in a row, and pauses.
        advanced: whether the attempt just made brought enough; then counting begins anew.

    Raises:
        Unavailable: the last attempt's, or the one whose `Retry-After` is longer than anybody waits.

    """
    failed = 0
    while True:
        try:
            return action()
        except Unavailable as error:
            failed = 1 if advanced() else failed + 1
            if failed >= patience.attempts or (error.retry_after_s or 0) > patience.most_s:
                raise
            asked_s = error.retry_after_s or 0.0
            # the same moment is asked of a whole fleet: it comes back over as long again
            time.sleep(asked_s + random.uniform(0, min(patience.most_s, max(patience.base_s * 2**failed, asked_s))))


def content(source: Source, place: str, most_bytes: int, *, least_bytes: int = 1) -> bytes:
    """A small file, at most `most_bytes` long.

    A head or a body that was cut off may look like a shorter answer: with less than `least_bytes` it is asked for again.

    Raises:
        TooMuch: it is longer.
        Absent: there is none.
        Unavailable: it could not be had now.
    """

    def once() -> bytes:
        found = bytearray()
        _, chunks = source.open(place)
        with contextlib.closing(chunks):
            for chunk in chunks:
                found += chunk
                if len(found) > most_bytes:
                    raise TooMuch(f"{place} has more than the {most_bytes:,} bytes announced; it is not taken.")
        if len(found) < least_bytes:
            raise Unavailable(f"{place} ended after {len(found):,} bytes; there have to be {least_bytes:,}.")
        return bytes(found)

    return persist(once, source.patience)


def download(source: Source, place: str, path: Path, file: File) -> None:
    """Fetch a file to `path` by way of `path.part`, which a broken download goes on from; renamed once it verifies.

    Raises:
        TooMuch: there is more of it than announced.
        EdgeError: its digest is another, also from the start.
        Absent: there is none.
        Unavailable: it could not be had now; what came is kept.
    """
    if path.is_file() and path.stat().st_size == file.bytes and sha256(path) == file.sha256:
        return
    part = path.with_name(path.name + ".part")
    resumed = part.is_file()
    for _ in range(2):  # a part may be damaged: the second time begins from nothing
        _fill(source, place, part, file)
        if sha256(part) == file.sha256:
            part.replace(path)
            return
        part.unlink()
        if not resumed:
            break
        resumed = False
    raise EdgeError(f"{place} is not the file that was signed: its sha256 is another. It was not opened.")


def _fill(source: Source, place: str, part: Path, file: File) -> None:
    size = part.stat().st_size if part.is_file() else 0
    if size > file.bytes:
        part.unlink()
        size = 0
    before = size
    enough = source.patience.min_bytes_per_s * source.patience.grace_s  # a few drops an attempt would hold us for ever

    def once() -> None:
        nonlocal size
        start, chunks = source.open(place, size)
        with contextlib.closing(chunks), part.open("r+b" if size else "wb") as stream:
            stream.truncate(start)
            stream.seek(start)
            size = start
            for chunk in chunks:
                size += len(chunk)
                if size > file.bytes:
                    break
                stream.write(chunk)
        if size > file.bytes:
            part.unlink()
            raise TooMuch(f"{place} has more than the {file.bytes:,} bytes announced; it is not taken.")
        if size < file.bytes:
            raise Unavailable(f"{place} ended after {size:,} of {file.bytes:,} bytes.")

    def advanced() -> bool:
        nonlocal before
        before, found = size, size - before >= enough
        return found

    if size < file.bytes or not part.is_file():
        persist(once, source.patience, advanced=advanced)

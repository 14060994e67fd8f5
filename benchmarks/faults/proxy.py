"""An HTTP proxy before a real server that answers honestly until a fault is on order.

A fault is a function of an `Exchange`: it answers in the server's place and returns True, or lets the honest answer pass.
"""

import contextlib
import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")
RST = struct.pack("ii", 1, 0)
"""Linger for no time: closing a socket resets the connection."""


def flipped(content: bytes, where: float, bit: int) -> bytes:
    """The content with one bit changed, `where` in [0, 1) of its length."""
    changed = bytearray(content)
    changed[int(where * len(content))] ^= 1 << bit % 8
    return bytes(changed)


def start_of(wanted: str | None) -> int:
    """The first byte that a `Range` asks for."""
    found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
    return int(found[1]) if found else 0


class Exchange:
    """A request, the honest answer to it, and the wire.

    Attributes:
        method: GET or PUT.
        name: the last part of the path.
        wanted: the `Range` asked for.
        status: of the honest answer.
        headers: of the honest answer, without those of one connection.
        content: of the honest answer.

    """

    def __init__(self, handler: "_Handler", body: bytes) -> None:
        self._handler, self._body = handler, body
        self.method = handler.command
        self.name = handler.path.partition("?")[0].rpartition("/")[2]
        self.wanted = handler.headers.get("Range")
        self.status, self.content = 0, b""
        self.headers: dict[str, str] = {}

    def ask(self) -> None:
        """Get the honest answer."""
        server = urlsplit(self._handler.server.upstream)
        link = http.client.HTTPConnection(server.hostname or "", server.port, timeout=60)
        passed = {
            key: value for key, value in self._handler.headers.items() if key.lower() not in ("host", "connection")
        }
        try:
            link.request(self.method, self._handler.path, self._body or None, passed)
            found = link.getresponse()
            self.status, self.content = found.status, found.read()
            self.headers = {key: value for key, value in found.getheaders() if key.lower() not in HOP_BY_HOP}
        finally:
            link.close()

    def pass_on(self) -> None:
        """Answer honestly."""
        self.answer(self.status, self.content, self.headers)

    def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer something else, in good order."""
        self.begin(status, {**(headers or {}), "Content-Length": str(len(content))}, close=False)
        self.write(content)

    def begin(self, status: int, headers: dict[str, str] | None = None, *, close: bool = True) -> None:
        """Write a head; the connection ends with this answer."""
        self._handler.send_response(status)
        for key, value in (headers or {}).items():
            self._handler.send_header(key, value)
        self._handler.end_headers()
        self._handler.close_connection |= close

    def write(self, content: bytes) -> None:
        """Write bytes to the wire."""
        self._handler.wfile.write(content)

    def cut(self) -> None:
        """End the connection as if all had been said."""
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection with a reset."""
        self._handler.close_connection = True
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self._handler.connection.close()

    def send_until_lifted(self, pieces: Callable[[], bytes], pause_s: float, most_bytes: int = 2**40) -> int:
        """Write on and on, as long as the fault lasts and the other side takes it; how many bytes."""
        sent, self._handler.close_connection = 0, True
        with contextlib.suppress(OSError):
            while self._handler.server.fault is not None and sent < most_bytes:
                piece = pieces()
                self.write(piece)
                sent += len(piece)
                time.sleep(pause_s)
        return sent


Fault = Callable[[Exchange], bool]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Listener"

    def log_message(self, *_: Any) -> None:
        pass

    def _relay(self) -> None:
        exchange = Exchange(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        with contextlib.suppress(OSError, http.client.HTTPException):
            exchange.ask()
            fault = self.server.fault
            if fault is None or not fault(exchange):
                exchange.pass_on()
            return
        self.close_connection = True

    do_GET = do_PUT = _relay


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    fault: Fault | None = None
    upstream = ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed


class Proxy:
    """The proxy, opened; `fault` is what befalls every request until it is None again."""

    def __init__(self, upstream: str) -> None:
        self._upstream, self._port = upstream, 0
        self._listener: _Listener | None = None
        self.open()

    @property
    def address(self) -> str:
        """Where devices ask."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def fault(self) -> Fault | None:
        """What befalls requests now."""
        return self._listener.fault if self._listener else None

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        if self._listener:
            self._listener.fault = fault

    def open(self) -> None:
        """Listen; harmless twice."""
        if self._listener is None:
            self._listener = _Listener(("127.0.0.1", self._port), _Handler)
            self._listener.upstream, self._port = self._upstream, self._listener.server_port
            threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections until opened again."""
        if self._listener is not None:
            self._listener.fault = None
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None

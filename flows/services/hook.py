"""The address that the registry's webhook calls: `POST /registry`, signed, on loopback (see `limbeck.tracking.webhooks`)."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flows.environment import HOOK_ROUTE
from limbeck.errors import WebhookError
from limbeck.tracking.webhooks import FRESH_S, Change, read

MAX_BYTES = 64 * 1024
SLOW_S = 10.0


class Hook(ThreadingHTTPServer):
    """Reads deliveries and hands on what they say, each once.

    Args:
        address: host and port; port 0 takes a free one (`server_port`).
        secret: shared with the registry's server.
        hand_on: gets a change. When it fails the registry is told to deliver again.
        say: gets a line about every request that is refused.

    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        secret: str,
        hand_on: Callable[[Change], None],
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(address, _Handler)
        self._secret, self._hand_on, self.say = secret, hand_on, say
        self._lock = threading.Lock()
        self._known: dict[str, float] = {}

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Hand on what a delivery says, unless it was before.

        Raises:
            WebhookError: it is not one (see `limbeck.tracking.webhooks.read`).

        """
        now = time.time()
        change = read(headers, body, self._secret, now)
        with self._lock:
            # Older ones are refused by their age.
            self._known = {name: at for name, at in self._known.items() if now - at < 2 * FRESH_S}
            if str(change.delivery) not in self._known:
                self._hand_on(change)
                self._known[str(change.delivery)] = now


class _Handler(BaseHTTPRequestHandler):
    timeout = SLOW_S
    server: Hook
    server_version = "limbeck"
    sys_version = ""

    def do_POST(self) -> None:
        """Answer 200 to what was handed on, 401 to what the registry did not send, 503 to what shall come again."""
        length = self.headers.get("Content-Length", "")
        if self.path != HOOK_ROUTE:
            return self._refuse(404, "no such address")
        if not length.isdecimal():
            return self._refuse(411, "no length")
        if int(length) > MAX_BYTES:
            return self._refuse(413, f"{length} bytes, at most {MAX_BYTES}")
        try:
            self.server.take(self.headers, self.rfile.read(int(length)))  # type: ignore[arg-type]  # any spelling
        except WebhookError as error:
            return self._refuse(401, str(error))
        except Exception as error:  # MLflow calls again after a 503
            return self._refuse(503, f"not handed on: {error!r}")
        self._answer(200)

    def _refuse(self, code: int, why: str) -> None:
        self.server.say(f"webhook: {code}, {why}")
        self.close_connection = True
        self._answer(code)

    def _answer(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: what matters is said by `_refuse`."""

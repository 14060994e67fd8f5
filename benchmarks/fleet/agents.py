"""Some of the fleet in one process, a thread each; `python agents.py`, told on standard input.

    -> {"homes": [FOLDER...], "serial": 2, "limit_s": 300}
    <- ready
    -> 1234.5                 when to begin, on the monotonic clock that processes of a machine share
    <- a list of what each agent did, as JSON

An agent is what a device runs: `limbeck.edge.update.update` over HTTP, again as `limbeck.edge.schedule` says, golden answers
held against those of its own session. Only the latency is not measured here, where hundreds take turns.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.edge import EdgeError, schedule, trial, trust
from limbeck.edge.fetch import Absent, Server, Unavailable
from limbeck.edge.home import Home
from limbeck.edge.update import update

assert trust.CHAMPION  # imported now, not at the moment that is measured
P95_MS = 5.0
"""The fixed profile: what a call takes on every device of this fleet."""
ANSWERED, IN_VAIN = "answered", "in vain"


class Counting(Server):
    """The server as a device asks it, with every knock written down."""

    def __init__(self, address: str, metadata: str) -> None:
        super().__init__(address, metadata)
        self.knocks: list[tuple[float, str, float]] = []
        self.bytes = 0

    def open(self, place: str, start: int = 0) -> tuple[int, Generator[bytes, None, None]]:
        """See `Source`."""
        began = time.monotonic()
        try:
            at, chunks = super().open(place, start)
        except Absent:  # an answer, too: there is no newer root
            self.knocks.append((began, ANSWERED, 0.0))
            raise
        except Unavailable as error:
            self.knocks.append((began, IN_VAIN, error.retry_after_s or 0.0))
            raise
        self.knocks.append((began, ANSWERED, 0.0))
        return at, self._counted(chunks)

    def _counted(self, chunks: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        with contextlib.closing(chunks):
            for chunk in chunks:
                self.bytes += len(chunk)
                yield chunk


def prove(folder: Path, proofs: list[float]) -> dict[str, Any]:
    """`trial.examine` with the fixed profile's latency; what the golden answers differed by joins `proofs`."""
    found = trial.examine(folder, lambda *_: P95_MS)
    proofs.append(found["max_difference"])
    return found


def live(folder: str, serial: int, limit_s: float, start: float, lives: list[dict[str, Any]]) -> None:
    """Look for updates from `start` on until the version is there, or for `limit_s`."""
    home = Home(folder)
    assert home.device.server is not None
    source = Counting(home.device.server, home.device.metadata)
    proofs: list[float] = []
    said, ended, looks = "", None, 0
    time.sleep(max(0.0, start - time.monotonic()))
    while ended is None and (left_s := start + limit_s - time.monotonic()) > 0:
        looks += 1
        try:
            outcome = update(home, source, prove=partial(prove, proofs=proofs))
        except EdgeError as error:
            said = str(error)
        else:
            said = f"{outcome.kind}: {outcome.why}"
            if (outcome.kind, outcome.serial) == ("switched", serial):
                ended = time.monotonic()
                break
        time.sleep(min(left_s, schedule.until_next_s(home.device.settings, home.read(), time.time())))
    lives.append(
        {
            "ended": ended,
            "said": said,
            "looks": looks,
            "knocks": source.knocks,
            "bytes": source.bytes,
            "max_difference": proofs,
        }
    )


def main() -> None:
    """See the module."""
    told = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    lives: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=live, args=(home, told["serial"], told["limit_s"], start, lives))
        for home in told["homes"]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(lives, sys.stdout)


if __name__ == "__main__":
    main()

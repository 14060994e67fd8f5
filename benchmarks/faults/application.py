"""A long-lived application: it asks its device's model all the time, and holds every answer against the right one.

python application.py HOME BATCH.npz      a line on standard input asks for what happened since the last one

The networks of the drill answer `right` plus their serial: an answer tells which version gave it.
"""

import json
import os
import sys
import threading
import time
from typing import Any

import numpy as np

from limbeck.edge.agent import Agent

PAUSE_S = 0.04
MOST_ERRORS = 20


class Told:
    """What happened since the drill asked: serials in the order they answered, what was wrong."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.errors: list[str] = []
        self.longest_s = 0.0

    def answered(self, serial: int) -> None:
        """Count an answer."""
        if not self.runs or self.runs[-1][0] != serial:
            self.runs.append([serial, 0])
        self.runs[-1][1] += 1


def main(home: str, file: str) -> None:
    """Answer until standard input ends."""
    with np.load(file) as given:
        batch, right_BK = given["batch"], given["right"]
    told, lock = Told(), threading.Lock()
    agent = Agent(home, updates=False)

    def ask_on() -> None:
        last = time.monotonic()
        while True:
            try:
                offset_BK = agent.predict(batch) - right_BK
                serial = round(float(offset_BK.mean()))
                error = (
                    "" if np.abs(offset_BK - serial).max() < 0.01 else f"a wrong answer, off by {offset_BK.tolist()}"
                )
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            now = time.monotonic()
            with lock:
                told.longest_s, last = max(told.longest_s, now - last), now
                if error:
                    told.errors = [*told.errors, error][:MOST_ERRORS]
                else:
                    told.answered(serial)
            time.sleep(PAUSE_S)

    threading.Thread(target=ask_on, daemon=True).start()
    for _ in sys.stdin:
        with lock:
            facts: dict[str, Any] = vars(told)
            told = Told()
        print(json.dumps(facts), flush=True)
    agent.close()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

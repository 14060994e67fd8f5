"""A line now and then about what takes long before the first sample comes."""

import time

EVERY_S = 5.0


class Telling:
    """Prints how far something has come, every few seconds; nothing when it is done sooner."""

    def __init__(self, what: str) -> None:
        self.what, self._told = what, time.monotonic()

    def progress(self, done: int, total: int) -> None:
        """So many of so many bytes."""
        if time.monotonic() - self._told > EVERY_S:
            self._told = time.monotonic()
            print(f"{self.what}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", flush=True)

"""Who may use the machine: ordinary stages share it up to a number, an exclusive one has it alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Machine:
    """A readers-writer lock with a number of places. One who waits to be alone lets nobody in before him.

    Args:
        places: how many stages may run side by side.
        stopped: set (see `stop`) when nobody may enter any more.
    """

    def __init__(self, places: int) -> None:
        assert places >= 1, "a machine without a place never runs anything"
        self.places = places
        self._inside = 0
        self._alone = False
        self._waiting_alone = 0
        self._stopped = False
        self._changed = threading.Condition()

    @contextmanager
    def use(self, *, alone: bool) -> Iterator[None]:
        """Wait for a place (or for the whole machine) and hold it.

        Raises:
            Stopped: the machine was stopped before a place came free.
        """
        with self._changed:
            self._waiting_alone += alone
            try:
                self._changed.wait_for(lambda: self._stopped or self._free(alone))
            finally:
                self._waiting_alone -= alone
                self._changed.notify_all()
            if self._stopped:
                raise Stopped("the run was interrupted")
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()

    def stop(self) -> None:
        """Turn away everyone who waits or comes later."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _free(self, alone: bool) -> bool:
        if alone:
            return self._inside == 0
        return not self._alone and not self._waiting_alone and self._inside < self.places


class Stopped(Exception):
    """The run was interrupted; nothing new starts."""

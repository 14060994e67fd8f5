import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows.machine import Machine, Stopped

LONG_S = 10.0


@contextmanager
def inside(machine: Machine, *, alone: bool) -> Iterator[threading.Event]:
    """Someone who enters as soon as he may and stays to the end of the block; the event says that he is in."""
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with machine.use(alone=alone):
            entered.set()
            leave.wait(LONG_S)

    threading.Thread(target=stay, daemon=True).start()
    try:
        yield entered
    finally:
        leave.set()


def test_stages_share_the_machine_up_to_its_places() -> None:
    machine = Machine(2)
    with inside(machine, alone=False) as first, inside(machine, alone=False) as second:
        assert first.wait(LONG_S)
        assert second.wait(LONG_S)
        with inside(machine, alone=False) as third:
            assert not third.wait(0.05)


def test_an_exclusive_stage_waits_for_the_others() -> None:
    machine = Machine(4)
    with inside(machine, alone=False) as shared:
        assert shared.wait(LONG_S)
        with inside(machine, alone=True) as alone:
            assert not alone.wait(0.05)


def test_nobody_enters_beside_an_exclusive_stage() -> None:
    machine = Machine(4)
    with inside(machine, alone=True) as alone:
        assert alone.wait(LONG_S)
        with inside(machine, alone=False) as shared, inside(machine, alone=True) as other:
            assert not shared.wait(0.05)
            assert not other.wait(0.05)


def test_one_who_waits_to_be_alone_is_not_starved() -> None:
    machine = Machine(4)
    first = inside(machine, alone=False)
    assert first.__enter__().wait(LONG_S)
    with inside(machine, alone=True) as alone, inside(machine, alone=False) as late:
        assert not alone.wait(0.05)
        assert not late.wait(0.05), "a newcomer overtook the one who waits"
        first.__exit__(None, None, None)
        assert alone.wait(LONG_S)
        assert not late.is_set()


def test_a_stopped_machine_turns_everyone_away() -> None:
    machine = Machine(1)
    refused = threading.Event()

    def wait() -> None:
        with pytest.raises(Stopped, match="interrupted"), machine.use(alone=False):
            pass
        refused.set()

    with inside(machine, alone=False) as first:
        assert first.wait(LONG_S)
        waiting = threading.Thread(target=wait)
        waiting.start()
        machine.stop()
        assert refused.wait(LONG_S)
        waiting.join()

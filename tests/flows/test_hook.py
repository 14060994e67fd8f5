"""The address that the registry calls: what it takes, what it refuses, and that it takes a thing once."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from flows.environment import HOOK_ROUTE
from flows.services.hook import MAX_BYTES, Hook
from limbeck.tracking.webhooks import Change
from tests.tracking.test_webhooks import MOVED, SECRET, delivery

BODY = json.dumps(MOVED).encode()


class Prefect:
    """Whom changes are handed on to."""

    def __init__(self) -> None:
        self.told: list[Change] = []
        self.is_away = False

    def __call__(self, change: Change) -> None:
        if self.is_away:
            raise OSError("nobody answers")
        self.told.append(change)


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def hook(prefect: Prefect, said: list[str]) -> Iterator[Hook]:
    with Hook(("127.0.0.1", 0), SECRET, prefect, said.append) as hook:
        thread = threading.Thread(target=hook.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hook
        hook.shutdown()
        thread.join()


def post(hook: Hook, body: bytes, headers: dict[str, str], route: str = HOOK_ROUTE, method: str = "POST") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", hook.server_port, timeout=10)
    try:
        connection.request(method, route, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def signed(body: bytes = BODY) -> dict[str, str]:
    return delivery(body, at=time.time(), name=str(uuid.uuid4()))


def test_a_delivery_is_handed_on_once_however_often_it_comes(hook: Hook, prefect: Prefect) -> None:
    headers = signed()
    assert [post(hook, BODY, headers) for _ in range(3)] == [200] * 3
    assert [change.alias for change in prefect.told] == ["champion"]


def test_one_that_could_not_be_handed_on_may_come_again(hook: Hook, prefect: Prefect) -> None:
    prefect.is_away = True
    headers = signed()
    assert post(hook, BODY, headers) == 503
    prefect.is_away = False
    assert post(hook, BODY, headers) == 200
    assert len(prefect.told) == 1


def test_what_the_registry_did_not_send_is_refused(hook: Hook, prefect: Prefect, said: list[str]) -> None:
    assert post(hook, BODY, delivery(BODY, secret="x" * 32, at=time.time())) == 401
    assert post(hook, BODY, delivery(BODY, at=time.time() - 3600)) == 401
    assert post(hook, BODY, signed(), route="/") == 404
    assert post(hook, b"", signed(), method="GET") == 501
    assert prefect.told == []
    assert all(SECRET not in line for line in said)


def test_a_body_is_bounded_before_it_is_read(hook: Hook, said: list[str]) -> None:
    assert post(hook, b"", {"Content-Length": str(MAX_BYTES + 1)}) == 413
    assert post(hook, b"", {"Content-Length": "-1"}) == 411
    assert said == [f"webhook: 413, {MAX_BYTES + 1} bytes, at most {MAX_BYTES}", "webhook: 411, no length"]

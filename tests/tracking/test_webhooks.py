"""A delivery is believed when it is signed, fresh and says what MLflow says; nothing else is."""

import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import WebhookError
from limbeck.tracking import webhooks
from limbeck.tracking.webhooks import FRESH_S, Change, read, signature

SECRET = "0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
ID = str(uuid.UUID(int=7))
MOVED = {
    "entity": "model_version_alias",
    "action": "created",
    "timestamp": "2026-11-21T20:00:00+00:00",
    "data": {"name": "digits-phone", "alias": "champion", "version": "3"},
}


def delivery(body: bytes, secret: str = SECRET, at: float = NOW, name: str = ID) -> dict[str, str]:
    told = {"X-MLflow-Delivery-Id": name, "X-MLflow-Timestamp": str(int(at))}
    return {**told, "X-MLflow-Signature": signature(secret, name, str(int(at)), body)}


def test_a_moved_alias_is_read() -> None:
    body = json.dumps(MOVED).encode()
    change = read(delivery(body), body, SECRET, NOW)
    assert change == Change(uuid.UUID(ID), "alias-set", "digits-phone", "3", "champion")


@pytest.mark.slow
def test_our_signature_is_the_one_that_mlflow_makes() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    assert signature(SECRET, ID, "1800000000", "ü{}".encode()) == _generate_hmac_signature(
        SECRET, ID, "1800000000", "ü{}"
    )


@pytest.mark.slow
def test_every_event_that_we_ask_for_is_one_of_mlflows() -> None:
    from mlflow.entities.webhook import WebhookEvent

    for entity, action in webhooks.ACTIONS:
        assert WebhookEvent.from_str(f"{entity}.{action}")


@settings(max_examples=30)
@given(
    st.sampled_from(["body", "X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature"]),
    st.binary(max_size=20),
)
def test_whatever_was_changed_on_the_way_is_refused(what: str, other: bytes) -> None:
    body = json.dumps(MOVED).encode()
    headers = delivery(body)
    if what == "body":
        body += b" " + other
    else:
        headers[what] = headers[what][:-1] + "~" + other.decode("latin-1")
    with pytest.raises(WebhookError, match="not signed with our secret"):
        read(headers, body, SECRET, NOW)


def test_an_unsigned_one_is_refused() -> None:
    with pytest.raises(WebhookError, match="not signed"):
        read({}, b"{}", SECRET, NOW)


@pytest.mark.parametrize("age", [FRESH_S + 1, -FRESH_S - 1])
def test_one_that_was_overheard_is_worth_nothing_later(age: float) -> None:
    body = json.dumps(MOVED).encode()
    with pytest.raises(WebhookError, match="s old, expected at most 300 s"):
        read(delivery(body, at=NOW - age), body, SECRET, NOW)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"entity": "prompt", "action": "created", "data": {"name": "x"}}',
     b'{"entity": "model_version", "action": "created", "data": {}}', b"\xff"],
)  # fmt: skip
def test_signed_nonsense_is_named_so(body: bytes) -> None:
    with pytest.raises(WebhookError, match="signed but not what MLflow sends"):
        read(delivery(body), body, SECRET, NOW)


def test_a_secret_that_could_be_guessed_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(webhooks.SECRET, "hunter2")
    with pytest.raises(WebhookError, match="has 7 characters, expected 16 or more") as refused:
        webhooks.secret()
    assert "hunter2" not in str(refused.value)


def test_the_key_that_encrypts_secrets_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    first, second = webhooks.server_environment(tmp_path), webhooks.server_environment(tmp_path)
    assert first == second
    assert (tmp_path / webhooks.KEY_FILE).stat().st_mode & 0o777 == 0o600

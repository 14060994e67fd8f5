"""The registry's webhook: MLflow's server tells an address of ours about new versions and moved aliases.

A delivery is signed as MLflow does it: HMAC-SHA256 with a shared secret over `ID.TIMESTAMP.BODY`, sent as
`v1,BASE64` beside the id and the time in headers. Whoever does not know the secret cannot make one, and one that was
overheard is worth nothing after `FRESH_S`.

MLflow's server refuses addresses that are not https and public unless it is started with `server_environment`.
"""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from limbeck.errors import WebhookError
from limbeck.tracking.server import asking

SECRET = "LIMBECK_WEBHOOK_SECRET"
"""The environment variable with the secret; it stands nowhere else."""

NAME = "limbeck"
KEY_FILE = "webhooks.key"
FRESH_S = 300
MIN_SECRET = 16

ACTIONS = {
    ("model_version", "created"): "version-created",
    ("model_version_alias", "created"): "alias-set",
    ("model_version_alias", "deleted"): "alias-deleted",
}
"""What we are told of, by MLflow's entity and action."""


@dataclass(frozen=True)
class Change:
    """What changed in the registry; `delivery` names this telling of it."""

    delivery: UUID
    action: str
    model: str
    version: str | None
    alias: str | None


def secret() -> str:
    """The secret that the registry's server and we share.

    Raises:
        WebhookError: there is none, or it is short enough to be guessed.

    """
    found = os.environ.get(SECRET, "")
    if len(found) < MIN_SECRET:
        raise WebhookError(
            f"{SECRET} has {len(found)} characters, expected {MIN_SECRET} or more. Next: "
            f'export {SECRET}="$(openssl rand -hex 32)"'
        )
    return found


def server_environment(folder: Path) -> dict[str, str]:
    """The variables with which MLflow's server may call an address on loopback, and keeps secrets it is given.

    That lets whoever may register a webhook there have the server call private addresses: for a server on loopback.

    Args:
        folder: where the server's database lies. The key that encrypts secrets in it lies beside it; without that
            MLflow makes one anew at each start and cannot read what it kept.

    """
    return {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": os.environ.get("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
        or _key(folder / KEY_FILE),
    }


def _key(file: Path) -> str:
    """A key for Fernet (32 bytes), made once."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(base64.urlsafe_b64encode(os.urandom(32)).decode())
    except FileExistsError:
        pass
    return file.read_text().strip()


def register(uri: str, address: str, shared: str) -> None:
    """Have the server at `uri` tell `address`; may be repeated, the last secret holds.

    Raises:
        TrackingError: the server does not answer, or refuses the address.

    """
    events = [".".join(event) for event in ACTIONS]
    with asking(uri) as client:
        for found in client.list_webhooks(max_results=100):
            if found.name == NAME:
                client.update_webhook(found.webhook_id, url=address, events=events, secret=shared, status="ACTIVE")
                return
        client.create_webhook(NAME, address, events=events, secret=shared, description="limbeck make up")


def signature(shared: str, delivery: str, timestamp: str, body: bytes) -> str:
    """What a delivery's signature must be."""
    content = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(shared.encode(), content, hashlib.sha256)).decode()


def read(headers: Mapping[str, str], body: bytes, shared: str, now: float) -> Change:
    """What a delivery says, once it is certain who sent it.

    Args:
        headers: of the request, by any spelling that the mapping knows.
        body: of the request, as it came.
        shared: the secret.
        now: seconds since 1970.

    Raises:
        WebhookError: it is not signed with the secret, too old, or not what MLflow sends.

    """
    delivery, timestamp, signed = (
        headers.get(f"X-MLflow-{name}") or "" for name in ("Delivery-Id", "Timestamp", "Signature")
    )
    if not hmac.compare_digest(signature(shared, delivery, timestamp, body).encode(), signed.encode()):
        raise WebhookError(
            f"the delivery is not signed with our secret. Next: the same {SECRET} for the server's webhook, "
            "python -m flows.services.deploy --hook registers it anew."
        )
    try:
        age = now - int(timestamp)
        told: dict[str, Any] = json.loads(body)
        data = told["data"]
        change = Change(
            UUID(delivery),
            ACTIONS[told["entity"], told["action"]],
            str(data["name"]),
            str(data["version"]) if data.get("version") is not None else None,
            data.get("alias"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WebhookError(f"the delivery is signed but not what MLflow sends: {error!r}") from None
    if abs(age) > FRESH_S:
        raise WebhookError(
            f"the delivery is {age:.0f} s old, expected at most {FRESH_S} s: sent again, or a clock is wrong."
        )
    return change

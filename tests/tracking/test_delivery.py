"""Which bundles an MLflow server holds of a model. Publishing to a real one is in tests/publishing/test_server_slow.py."""

from pathlib import Path
from typing import Any

import pytest

from limbeck.tracking.delivery import Server
from limbeck.tracking.server import open_client
from tests.tracking.conftest import MODEL


class Unserved(Server):
    """A registry without a server before it, and files in memory."""

    def __init__(self, uri: str) -> None:
        self.uri, self._client, self.stored = uri, open_client(uri), dict[str, bytes]()

    def _request(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("bundles are told by the registry alone")

    def _sizes(self, folder: str) -> dict[str, int]:
        return {}

    def _put(self, path: str, content: bytes) -> None:
        self.stored[path] = content


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text("{}")
    return tmp_path / "bundle"


def test_a_server_knows_every_bundle_of_a_model_by_what_devices_call_it(uri: str, bundle: Path) -> None:
    server = Unserved(uri)
    for model, digest in ((MODEL, "a" * 64), (MODEL, "b" * 64), ("birds-phone", "c" * 64), (MODEL, "a" * 64)):
        server.keep(model, digest, bundle)
    assert server.kept(MODEL) == {"a" * 16, "b" * 16}


def test_asking_for_bundles_makes_nothing_and_takes_no_experiment_of_others(uri: str) -> None:
    server, client = Unserved(uri), open_client(uri)
    client.create_run(client.create_experiment(MODEL), tags={"limbeck.bundle": "a" * 64})
    assert server.kept(MODEL) == server.kept("never-published") == set()
    assert client.get_experiment_by_name("never-published") is None

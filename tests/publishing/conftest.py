"""What tests of publishing share: versions in a registry, keys, a place, and a device that trusts neither."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from limbeck.publishing import keys as keys_file
from limbeck.publishing.keys import Keys
from limbeck.publishing.places import Folder
from limbeck.publishing.serving import Publisher
from tests.tracking.conftest import MODEL, register, write_export

CONTRACT = {"max_drop": 0.015, "min_quality": None, "max_p95_ms": 2.0, "max_size_kb": 256, "require": "kept"}
MEASURED = {
    "p95_ms": {"value": 0.05, "low": 0.04, "high": 0.06},
    "bytes": 6_000,
    "machine": {"arch": "x86_64", "onnxruntime": "1.31.1"},
    "instructions": "any",
}
DESCRIBED = {
    "variant": "model.int8",
    "minimum_agent": "0.1.0",
    "runtime": {"onnxruntime": ">=1.20"},
    "instructions": "any",
    "classes": ["0", "1"],
    "input": {"name": "input", "shape": ["batch", 4], "dtype": "uint8"},
    "tolerance": {"max_difference": 0.001, "min_equal": 0.99},
    "contract": CONTRACT,
    "measured": {"threads": 1, "batch_size": 1, **MEASURED},
}
OTHER = "digits-sensor"


def register_version(uri: str, exported: Path, weight: float, model: str = MODEL) -> None:
    """Make a version that has what publishing asks for."""
    tags = {"limbeck.contract": json.dumps(CONTRACT), "limbeck.measured": json.dumps(MEASURED)}
    register(uri, exported, write_export(exported, weight), model=model, tags=tags)


class Shelf:
    """A registry in memory: three versions of MODEL, the last one champion, and one of OTHER."""

    def __init__(self) -> None:
        self.aliases = {(MODEL, "champion"): "3", (MODEL, "candidate"): "3", (OTHER, "champion"): "1"}

    def serial_at(self, model: str, alias: str) -> int:
        return int(self.aliases[model, alias])

    def make_bundle(self, model: str, serial: int, folder: Path) -> str:
        contents = {"model.int8.onnx": f"{model} {serial}".encode() * 100, "golden.npz": b"answers"}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        described = {name: {"bytes": len(c), "sha256": sha256(c).hexdigest()} for name, c in contents.items()}
        manifest = json.dumps({"format": 2, "name": model, "serial": serial, "files": described, **DESCRIBED}).encode()
        (folder / "manifest.json").write_bytes(manifest)
        return sha256(manifest).hexdigest()

    def mirror(self, model: str, alias: str, number: str | None) -> str | None:
        before = self.aliases.pop((model, alias), None)
        if number is not None:
            self.aliases[model, alias] = number
        return before


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keys_file.init(tmp_path_factory.mktemp("made") / "keys").folder


@pytest.fixture
def keys(workspace: Path, made_keys: Path) -> Keys:
    shutil.copytree(made_keys, workspace / "keys")
    return Keys.open(workspace / "keys")


@pytest.fixture
def place(workspace: Path) -> Folder:
    return Folder(workspace / "published")


@pytest.fixture
def lines() -> list[str]:
    """What the publisher said."""
    return []


@pytest.fixture
def publisher(keys: Keys, place: Folder, shelf: Shelf, workspace: Path, lines: list[str]) -> Publisher:
    return Publisher(keys, place, registry=shelf, ledger_file=workspace / "ledger.jsonl", say=lines.append)


class FromFolder(FetcherInterface):
    """A server that serves a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.folder / url.removeprefix("http://here/")
        if not path.exists():
            raise DownloadHTTPError(url, 404)
        yield path.read_bytes()


@dataclass
class Device:
    """python-tuf's own client with the first root, as a device in the field has it."""

    home: Path
    root: bytes
    fetcher: FetcherInterface
    url: str = "http://here/metadata/"
    versions: list[int] = field(default_factory=list)

    def sees(self, alias: str = "champion", model: str = MODEL) -> dict[str, Any]:
        """What it is to run: the target's custom data, its manifest's length and hash; empty for nothing."""
        self.home.mkdir(parents=True, exist_ok=True)
        updater = Updater(str(self.home), self.url, fetcher=self.fetcher, bootstrap=self.root)
        updater.refresh()
        found = updater.get_targetinfo(f"{model}/{alias}")
        timestamp = json.loads((self.home / "timestamp.json").read_bytes())
        self.versions.append(timestamp["signed"]["version"])
        return {} if found is None else {**(found.custom or {}), "length": found.length, "hashes": found.hashes}


@pytest.fixture
def device(workspace: Path, place: Folder, keys: Keys) -> Device:
    return Device(workspace / "device", keys.root_bytes(1), FromFolder(place.path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MLflow and the libraries below it warn about one another."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for category in ("DeprecationWarning", "FutureWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))

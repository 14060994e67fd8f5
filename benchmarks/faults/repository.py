"""A real MLflow server and an honest publisher, who can be made to sign what an attacker or a mishap would."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from benchmarks.faults.networks import GOLDEN_INPUTS, HONEST, VARIANT, Version, answers, write_network
from limbeck.edge import golden
from limbeck.edge.bundle import key_of
from limbeck.edge.manifest import NAME
from limbeck.publishing import keys
from limbeck.publishing.serving import Publisher
from limbeck.tracking.delivery import Server

FILES = ("golden.npz", f"{VARIANT}.onnx")


class Shelf:
    """The registry that versions come from; it remembers the digest of everything that was signed."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, int], Version] = {}
        self.signed: dict[str, dict[str, str]] = {}

    def serial_at(self, model: str, alias: str) -> int:
        """See `limbeck.publishing.places.Registry`."""
        return max(serial for name, serial in self.versions if name == model)

    def mirror(self, model: str, alias: str, number: str | None) -> str | None:
        """See `limbeck.publishing.places.Registry`; nobody looks."""
        return number

    def make_bundle(self, model: str, serial: int, folder: Path) -> str:
        """See `limbeck.publishing.places.Registry`."""
        version = self.versions[model, serial]
        file = folder / f"{VARIANT}.onnx"
        write_network(file, serial)  # golden answers are those of a machine where it is as it should be
        golden_logits = answers(file, GOLDEN_INPUTS) * np.float32(version.golden_factor)
        golden.write(folder / "golden.npz", GOLDEN_INPUTS, {VARIANT: golden_logits})
        write_network(file, serial, version.body)
        if version.garbage:
            file.write_bytes(np.random.default_rng(serial).bytes(5000))
        digests = {name: sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
        described = {
            "format": 2,
            "name": model,
            "serial": serial,
            "variant": VARIANT,
            "input": {"name": "input", "shape": ["batch", 8, 8, 1], "dtype": "uint8"},
            "classes": [f"class {k}" for k in range(10)],
            "tolerance": {"max_difference": 1e-4},
            "contract": {"max_p95_ms": version.max_p95_ms},
            "measured": {"threads": 1, "batch_size": 1},
            "runtime": {"onnxruntime": ">=1.20"},
            "opset": 18,
            "instructions": "any",
            "minimum_agent": "0.1.0",
            "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": digests[name]} for name in FILES},
        }
        content = json.dumps(described).encode()
        (folder / NAME).write_bytes(content)
        digest = sha256(content).hexdigest()
        self.signed[key_of(serial, digest)] = digests
        return digest


Change = Callable[[Any], None]
"""Changes what a role says, before it is signed."""


class Repository:
    """The publisher, his keys and his server; several drills take turns.

    Args:
        place: a new folder.
        uri: of the server.

    """

    def __init__(self, place: Path, uri: str) -> None:
        self._lock = threading.RLock()
        self.uri = uri
        self.shelf = Shelf()
        self._keys = keys.init(place / "keys")
        self._server = Server(uri)
        self._publisher = Publisher(self._keys, self._server, registry=self.shelf, ledger_file=place / "ledger.jsonl")
        self._strangers = keys.init(place / "strangers")
        self.history: list[bytes] = []

    def publish(self, model: str, serial: int, version: Version = HONEST) -> None:
        """Sign and upload a version, which everybody is to run."""
        with self._lock:
            self.shelf.versions[model, serial] = version
            self._publisher.publish(model, serial=serial)
            self.history.append(self.read("timestamp.json"))

    def provision(self, model: str, out: Path, address: str) -> None:
        """What a device starts from."""
        with self._lock:
            self._publisher.provision(model, out, server=address, reports=True)

    def read(self, name: str) -> bytes:
        """A metadata file as it is on the server.

        Raises:
            FileNotFoundError: there is none.

        """
        with self._lock:
            content = self._server.read(name)
        if content is None:
            raise FileNotFoundError(name)
        return content

    def chain(self) -> dict[str, str]:
        """The file names of the metadata in force."""
        with self._lock:
            timestamp = Metadata[Timestamp].from_bytes(self.read("timestamp.json")).signed
            snapshot = f"{timestamp.snapshot_meta.version}.snapshot.json"
            targets = Metadata[Snapshot].from_bytes(self.read(snapshot)).signed.meta["targets.json"].version
        return {"timestamp": "timestamp.json", "snapshot": snapshot, "targets": f"{targets}.targets.json"}

    def forge(self, role: str, change: Change, *, stranger: bool = False) -> dict[str, bytes]:
        """The metadata in force with one role changed, and all above it fitting and signed by the true keys.

        Args:
            role: timestamp, snapshot or targets.
            change: what is done to it.
            stranger: another one's key signs the changed role.

        """
        with self._lock:
            names = self.chain()
            found: dict[str, bytes] = {}
            below: MetaFile | None = None
            for each in ("targets", "snapshot", "timestamp")[("targets", "snapshot", "timestamp").index(role) :]:
                metadata: Metadata[Any] = Metadata.from_bytes(self.read(names[each]))
                if each == role:
                    change(metadata.signed)
                elif isinstance(metadata.signed, Snapshot):
                    metadata.signed.meta["targets.json"] = below
                else:
                    metadata.signed.snapshot_meta = below
                signers = (self._strangers if stranger and each == role else self._keys).enough(each)
                metadata.sign(signers[0])
                content = metadata.to_bytes()
                found[names[each]] = content
                below = MetaFile.from_data(metadata.signed.version, content, ["sha256"])
        return found

    def next_root(self, version: int, *, stranger: bool = False) -> bytes:
        """A root after the one in force, which says the same; signed by its keys, or by a stranger's."""
        root = Metadata[Root].from_bytes(self._keys.root_bytes(1))
        root.signed.version = version
        root.sign((self._strangers if stranger else self._keys).enough("root")[0])
        return root.to_bytes()

    def describe(self, name: str, version: int) -> MetaFile:
        """What a snapshot says of a metadata file that is on the server."""
        return MetaFile.from_data(version, self.read(name), ["sha256"])

    def targets_of(self, timestamp: bytes) -> int:
        """The version of the targets that an older timestamp speaks of."""
        number = Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta.version
        return int(
            Metadata[Snapshot].from_bytes(self.read(f"{number}.snapshot.json")).signed.meta["targets.json"].version
        )


def expired_since(seconds: float) -> Change:
    """Let a role have expired so long ago."""

    def change(signed: Any) -> None:
        signed.expires = keys.now() - timedelta(seconds=seconds)

    return change

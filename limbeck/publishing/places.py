"""What a publisher stands between: a registry that versions come from, and a place that devices fetch from."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from limbeck.atomic import replace
from limbeck.errors import PublishingError

METADATA, ARTIFACTS = "metadata", "artifacts"


class Registry(Protocol):
    """Registered versions: `limbeck.publishing.bundle.Registered` is MLflow's."""

    def serial_at(self, model: str, alias: str) -> int:
        """The version that an alias points to."""

    def make_bundle(self, model: str, serial: int, folder: Path) -> str:
        """Fill an empty folder with a version's bundle, always the same bytes; the digest of its manifest."""

    def mirror(self, model: str, alias: str, number: str | None) -> str | None:
        """Show which version is served under an alias (None: none is); which one was shown before."""


class Place(Protocol):
    """Metadata files and bundles: an MLflow server (`limbeck.tracking.delivery`), or a `Folder`.

    Attributes:
        name: what messages call it, without a password.
        server: address that devices fetch from, None for a folder.
        metadata: path of the metadata below the server's artifacts.

    """

    name: str
    server: str | None
    metadata: str

    def reports(self) -> str:
        """Where devices put what they tell, below the server's artifacts.

        Raises:
            PublishingError: nothing comes back from there.

        """

    def reporters(self) -> list[str]:
        """Names of the folders that devices made where `reports` says. What lies in them is anybody's word."""

    def told(self, reporter: str) -> list[str]:
        """Files in such a folder, none larger than a report is."""

    def hear(self, reporter: str, name: str) -> bytes | None:
        """Such a file; None where there is none, or a larger one."""

    def names(self) -> list[str]:
        """The metadata files."""

    def read(self, name: str) -> bytes | None:
        """A metadata file, None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Put a metadata file in its place. Allowed during a turn alone."""

    def turn(self) -> AbstractContextManager[None]:
        """Wait until nobody else edits the metadata, and keep others from it meanwhile."""

    def keep(self, model: str, digest: str, bundle: Path) -> str:
        """Store a bundle under the digest of its manifest, files that are there already excepted; its path."""

    def kept(self, model: str) -> set[str]:
        """Every bundle that was stored for a model, by the first 16 hex digits of its manifest's digest, as devices name it."""

    def fetch(self, artifacts: str, name: str) -> bytes:
        """A file of the bundle at a path.

        Raises:
            PublishingError: it is not there.

        """


class Folder:
    """A folder with `metadata/` and `artifacts/`: a stick, or what sticks are copied from."""

    server: str | None = None
    metadata = METADATA

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def reports(self) -> str:
        """See `Place`."""
        raise PublishingError(f"{self.path} is a folder, into which no device reports; leave --reports out.")

    def reporters(self) -> list[str]:
        """See `Place`."""
        return []

    def told(self, reporter: str) -> list[str]:
        """See `Place`."""
        return []

    def hear(self, reporter: str, name: str) -> bytes | None:
        """See `Place`."""
        return None

    def names(self) -> list[str]:
        """See `Place`."""
        return sorted(path.name for path in (self.path / METADATA).glob("*.json"))

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        path = self.path / METADATA / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        with replace(self.path / METADATA / name) as partial:
            partial.write_bytes(content)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Place`. The lock ends with the process that holds it, however that ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def keep(self, model: str, digest: str, bundle: Path) -> str:
        """See `Place`."""
        artifacts = f"{model}/{digest[:16]}"
        for file in sorted(bundle.iterdir()):
            self.put(artifacts, file.name, file.read_bytes())
        return artifacts

    def kept(self, model: str) -> set[str]:
        """See `Place`."""
        return {path.name for path in (self.path / ARTIFACTS / model).glob("*")}

    def put(self, artifacts: str, name: str, content: bytes) -> None:
        """Store a file of a bundle, unless it is there."""
        path = self.path / ARTIFACTS / artifacts / name
        if not path.exists() or path.read_bytes() != content:
            with replace(path) as partial:
                partial.write_bytes(content)

    def fetch(self, artifacts: str, name: str) -> bytes:
        """See `Place`."""
        path = self.path / ARTIFACTS / artifacts / name
        if not path.exists():
            raise PublishingError(f"{path} is missing; publish that version again.")
        return path.read_bytes()

"""What this device may run, as signed metadata says: The Update Framework's client, through python-tuf.

tuf brings 20 MB: only the process that updates imports this module.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from limbeck.edge import EdgeError, bundle, durable
from limbeck.edge.fetch import Absent, Source, TooMuch, content
from limbeck.edge.home import Home, Record
from limbeck.edge.manifest import NAME

CHAMPION, CANARY = "champion", "canary"


@dataclass(frozen=True)
class Offer:
    """A bundle this device is meant to run."""

    alias: str
    manifest: bundle.Manifest
    content: bytes
    artifacts: str


class _Fetcher(FetcherInterface):
    """Our patience and our caps below python-tuf's client."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def download_bytes(self, url: str, max_length: int) -> bytes:
        try:
            return content(self._source, url, max_length)
        except Absent as error:
            raise exceptions.DownloadHTTPError(str(error), error.status) from error
        except TooMuch as error:
            raise exceptions.DownloadLengthMismatchError(str(error)) from error

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError("metadata is small and fetched whole")


def share_of(salt: str, device: str) -> float:
    """Where a device stands in a staged rollout, in [0, 1): stable, and another order for every salt."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{device}".encode()).digest()[:8], "big") / 2**64


def check(home: Home, source: Source, record: Record, now: float) -> Offer:
    """Refresh trusted metadata and read from it which bundle is this device's.

    Args:
        home: holds the trusted root and metadata.
        source: a server or a stick.
        record: what was refused here, and the latest time known.
        now: Unix time by this device's clock.

    Raises:
        EdgeError: metadata is not to be trusted, expired, or names nothing for this device.
        Unavailable: the source cannot be read now.

    """
    folder = home.path / "tuf"
    folder.mkdir(exist_ok=True)
    for left in folder.glob("tmp*"):  # a killed python-tuf's
        left.unlink()
    try:
        updater = Updater(
            str(folder),
            source.metadata,
            fetcher=_Fetcher(source),
            config=UpdaterConfig(prefix_targets_with_hash=False),
            bootstrap=home.root,
        )
        updater.refresh()
        _refuse_expired(folder, max(now, record.clock))
        durable.fsync_tree(folder)  # the versions seen are the floor under the next ones: a power cut must not lower it
        names = [f"{home.device.model}/{alias}" for alias in (CANARY, CHAMPION)]
        canary, champion = (updater.get_targetinfo(name) for name in names)
    except exceptions.ExpiredMetadataError as error:
        clock = datetime.fromtimestamp(now, UTC).isoformat(timespec="minutes")
        raise EdgeError(
            f"{error}, by this device's clock, which says {clock}. Set the clock, or have the publisher run `limbeck renew`; "
            "the model in use goes on."
        ) from None
    except exceptions.RepositoryError as error:
        raise EdgeError(
            f"the metadata at {source.metadata} cannot be trusted: {_line(error)} The model in use goes on."
        ) from None
    except exceptions.DownloadError as error:
        if isinstance(error.__cause__, EdgeError):
            raise error.__cause__ from None
        raise EdgeError(f"the metadata at {source.metadata} cannot be fetched: {_line(error)}") from None
    if canary is not None:
        offer = _offer(home, source, CANARY, canary)
        if offer is not None and offer.manifest.key not in record.refused:
            return offer
    if champion is None:
        raise EdgeError(
            f"the signed metadata names no {names[1]}; have it published (`limbeck publish {home.device.model}`), or "
            "provision this device for another model."
        )
    offer = _offer(home, source, CHAMPION, champion)
    assert offer is not None
    return offer


def _refuse_expired(folder: Path, now: float) -> None:
    """python-tuf asks the clock; when that was set back, the latest time at which all was well counts."""
    for role in ("timestamp", "snapshot", "targets"):
        signed = Metadata.from_file(str(folder / f"{role}.json")).signed
        if signed.is_expired(datetime.fromtimestamp(now, UTC)):
            raise exceptions.ExpiredMetadataError(f"{role}.json expired at {signed.expires.isoformat()}")


def _offer(home: Home, source: Source, alias: str, target: TargetFile) -> Offer | None:
    """The manifest behind a target, verified; None for a canary whose turn is not this device's."""
    custom: dict[str, Any] = target.custom or {}
    name = f"{home.device.model}/{alias}"
    try:
        if alias == CANARY and share_of(str(custom["salt"]), home.device.id) >= int(custom["share_ppm"]) / 1e6:
            return None
        serial, artifacts = int(custom["serial"]), str(custom["artifacts"])
    except (KeyError, TypeError, ValueError) as error:
        raise EdgeError(f"the target {name} does not say where its bundle is: {error!r}. Publish it again.") from None
    if target.length > bundle.MAX_MANIFEST_BYTES:
        raise EdgeError(
            f"the manifest of {name} has {target.length:,} bytes, allowed are {bundle.MAX_MANIFEST_BYTES:,}."
        )
    found = _held(home, serial, target)
    if found is None:
        place = _join(source.artifacts, artifacts, NAME)
        found = content(source, place, target.length, least_bytes=target.length)
        try:
            target.verify_length_and_hashes(found)
        except exceptions.LengthOrHashMismatchError as error:
            raise EdgeError(f"the manifest of {name} is not the one that was signed: {_line(error)}") from None
    manifest = bundle.parse(found)
    if (manifest.serial, manifest.name) != (serial, home.device.model):
        raise EdgeError(
            f"{name} serves serial {serial}, its manifest describes {manifest.name} serial {manifest.serial}. Publish it again."
        )
    return Offer(alias, manifest, found, artifacts)


def _held(home: Home, serial: int, target: TargetFile) -> bytes | None:
    """The manifest when this device has it already: most checks then ask for metadata alone."""
    key = bundle.key_of(serial, target.hashes.get("sha256", ""))
    try:
        found = (home.bundle(key) / NAME).read_bytes()
        target.verify_length_and_hashes(found)
    except (OSError, exceptions.LengthOrHashMismatchError):
        return None
    return found


def _join(*parts: str) -> str:
    return "/".join(part.strip("/") for part in parts if part)


def place_of(source: Source, offer: Offer, name: str) -> str:
    """Where a file of an offered bundle lies."""
    return _join(source.artifacts, offer.artifacts, name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."

"""An update, step by step; each is durable before the next one begins, and the same call goes on after a kill.

    check      what signed metadata says this device should run
    offered    it fits the device: versions, instructions, space
    downloaded every file has the length and digest that the manifest says
    verified   the whole bundle lies in its place, synced
    proven     golden answers and latency on this device, in a process of its own
    switched   the record points to it; the version before is kept, and the new one is on probation

Probation is judged by who serves (`limbeck.edge.agent`).
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from limbeck.edge import EdgeError, bundle, durable, spool, trial
from limbeck.edge.fetch import Source, download
from limbeck.edge.home import Home
from limbeck.edge.manifest import NAME
from limbeck.edge.measure import machine
from limbeck.edge.processors import PROOF

RESERVE_BYTES = 4_000_000
"""Left free on the disk: the record and the spool have to be written, too."""


@dataclass(frozen=True)
class Outcome:
    """How an update ended: `current`, `switched`, `held` or `refused`, and a sentence."""

    kind: str
    serial: int
    why: str


def update(
    home: Home,
    source: Source,
    *,
    again: bool = False,
    prove: Callable[[Path], dict[str, Any]] = trial.prove,
    now: Callable[[], float] = time.time,
) -> Outcome:
    """Bring this device to the version that signed metadata names, or leave it as it is.

    Args:
        home: the device's state.
        source: the server, or a stick.
        again: try what was refused here once more.
        prove: puts a bundle to the test on this device.
        now: this device's clock.

    Raises:
        EdgeError: there is no update to be had now; what serves goes on.

    """
    with home.locked("update") as free:
        if not free:
            raise EdgeError(f"another update of {home.path} is running; it goes on by itself.")
        try:
            outcome = _update(home, source, again, prove, now)
        except (EdgeError, OSError) as error:
            after = getattr(error, "retry_after_s", None)
            with home.edit() as record:
                record.failure = str(error)
                record.not_before = now() + after if after else 0.0
            raise
        with home.edit() as record:
            record.failure, record.not_before = "", 0.0
        return outcome


def _update(
    home: Home, source: Source, again: bool, prove: Callable[[Path], dict[str, Any]], now: Callable[[], float]
) -> Outcome:
    from limbeck.edge import trust

    if again:
        with home.edit() as record:
            record.refused.clear()
    offer = trust.check(home, source, home.read(), now())
    manifest, key = offer.manifest, offer.manifest.key
    with home.edit() as record:
        record.clock = max(record.clock, now())
    if key == record.current and is_whole(home, key):
        if record.candidate is not None:  # what was on its way is not wanted any more
            with home.edit() as record:
                record.step, record.candidate = "idle", None
        home.tidy(record)
        return Outcome("current", manifest.serial, "is in use" + (", on probation" if record.on_probation else ""))
    if key in record.refused:
        return Outcome("refused", manifest.serial, f"was refused here before: {record.refused[key]}")
    _refuse_unfit(manifest)
    if (record.candidate, record.step) != (key, "proven") or not is_whole(home, key):
        _mark(home, "offered", key)
        home.tidy(home.read())
        if not is_whole(home, key):
            _fetch(home, source, offer)
        _mark(home, "verified", key)
        if home.is_held():
            return Outcome("held", manifest.serial, "is here and waits: the application says 'not now'")
        try:
            prove(home.bundle(key))
        except EdgeError as error:
            with home.edit() as record:
                record.refuse(key, str(error))
                record.step, record.candidate = "idle", None
                spool.tell(home, "refused", key, str(error))  # before the record: told twice rather than never
            home.tidy(record)
            return Outcome("refused", manifest.serial, str(error))
        _mark(home, "proven", key)
    with home.locked("hold") as free:
        if not free:
            return Outcome("held", manifest.serial, "is proven and waits: the application says 'not now'")
        with home.edit() as record:
            record.switch(key, now())
    home.tidy(record)
    return Outcome("switched", manifest.serial, "serves, on probation")


def _mark(home: Home, step: str, key: str) -> None:
    """A named step is done, durably."""
    with home.edit() as record:
        record.step, record.candidate = step, key


def is_whole(home: Home, key: str) -> bool:
    """Whether a bundle lies in its place, file by file as published."""
    try:
        bundle.read(home.bundle(key))
    except EdgeError:
        return False
    return True


def _refuse_unfit(manifest: bundle.Manifest) -> None:
    """What this agent, runtime or processor cannot run is not fetched. It is asked again: an agent may be updated."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    here = machine()
    try:
        if Version(version("limbeck")) < Version(manifest.minimum_agent):
            raise EdgeError(
                f"serial {manifest.serial} needs limbeck {manifest.minimum_agent}, this is {version('limbeck')}; update the agent."
            )
        for package, wanted in manifest.runtime.items():
            if not SpecifierSet(wanted).contains(version(package), prereleases=True):
                raise EdgeError(
                    f"serial {manifest.serial} needs {package} {wanted}, this device has {version(package)}; install that."
                )
    except (InvalidSpecifier, InvalidVersion) as error:
        raise EdgeError(
            f"the manifest of serial {manifest.serial} asks for no version: {error}. Publish it again."
        ) from None
    proof = PROOF.get(manifest.instructions)
    if proof is None or (proof and not proof & set(here["instructions"])):
        raise EdgeError(
            f"serial {manifest.serial} needs the processor's {manifest.instructions}, which {here['cpu']} does not report; "
            "publish one made for it."
        )


def _fetch(home: Home, source: Source, offer: Any) -> None:
    """Files of a bundle to their place: only what verified is ever renamed into `bundles/`."""
    from limbeck.edge import trust

    manifest = offer.manifest
    folder = home.incoming(manifest.key)
    folder.mkdir(parents=True, exist_ok=True)
    here = sum(path.stat().st_size for path in folder.iterdir())
    needed, free = manifest.bytes - here + RESERVE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise EdgeError(
            f"serial {manifest.serial} needs {needed:,} bytes of disk below {home.path}, {free:,} are free; free some space."
        )
    durable.write_bytes(folder / NAME, offer.content)
    for name, file in manifest.files.items():
        download(source, trust.place_of(source, offer, name), folder / name, file)
    durable.fsync_tree(folder)
    _mark(home, "downloaded", manifest.key)
    bundle.read(folder)
    place = home.bundle(manifest.key)
    shutil.rmtree(place, ignore_errors=True)  # damaged, or we would not be here
    durable.move(folder, place)


def open_source(home: Home, stick: Path | None = None) -> Source:
    """Where this device gets its updates; the account's name and password come from the environment."""
    import os

    from limbeck.edge.fetch import Folder, Patience, Server

    if stick is not None:
        return Folder(stick)
    if home.device.server is None:
        raise EdgeError(f"{home.path} was provisioned without a server; give --from STICK.")
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "PASSWORD"))
    credentials = (name, password or "") if name else None
    patience = Patience().times(home.device.settings.patience)
    return Server(home.device.server, home.device.metadata, credentials=credentials, patience=patience)

"""The state folder of a device.

    device.json      which server, which model, who we are, settings
    root.json        the root of trust it was provisioned with
    tuf/             trusted metadata (python-tuf's own form)
    incoming/KEY/    files of a bundle on their way, NAME.part until verified
    bundles/KEY/     verified bundles, never changed; KEY is SERIAL-DIGEST of the manifest
    state.json       the record: current, previous, the step an update is in, what was refused
    spool/           what is to be told to the server
    *.lock           held, never written: the kernel lets go when a process dies

The record is one file, replaced whole: pointer and step change together or not at all.
"""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.edge import EdgeError, durable

STEPS = ("idle", "offered", "downloaded", "verified", "proven", "switched")
"""What an update has done last, as the record says. After `switched` comes probation, which ends in `idle`."""
MAX_REFUSED = 50


@dataclass(frozen=True)
class Settings:
    """What an operator may choose, in device.json.

    Attributes:
        check_every_s: between two looks for an update; each is jittered by a tenth.
        window_s: how long a new version is on probation, at least.
        min_answers: how many answers it gives in that time, at least.
        max_confidence_drop: of the mean confidence against the version before, on probation.
        latency_slack: how many times the contract's p95 an answer may take beside the application, on probation.
        max_starts: processes that may open a version on probation without closing it; one more, and it crashed them.
        report_every_s: between two reports of use.
        patience: how many times the usual a server may take for anything, and pauses last; below 1 on a fast network.
        max_spool_bytes: on disk for what awaits its upload; the oldest goes first.
        samples_below: confidence under which raw samples are kept for the operator; null keeps none.
        samples_per_day: at most so many.
    """

    check_every_s: float = 3600.0
    window_s: float = 600.0
    min_answers: int = 100
    max_confidence_drop: float = 0.2
    latency_slack: float = 3.0
    max_starts: int = 3
    report_every_s: float = 3600.0
    patience: float = 1.0
    max_spool_bytes: int = 8_000_000
    samples_below: float | None = None
    samples_per_day: int = 20


@dataclass(frozen=True)
class Device:
    """Who this is and whom it asks (nobody where updates come on sticks); paths lie below the server's artifact root."""

    server: str | None
    metadata: str
    model: str
    id: str
    reports: str | None = None
    settings: Settings = field(default_factory=Settings)


@dataclass
class Record:
    """The durable state; see `Home.edit`.

    Attributes:
        current: key of the bundle that serves.
        previous: key of the last one that was committed before it.
        step: of STEPS.
        candidate: key of the bundle the step is about.
        since: Unix time of the switch while the current bundle is on probation, else 0.
        starts: processes that opened the version on probation and did not close it.
        refused: keys that failed here, and why; they are not tried again.
        clock: the latest Unix time at which metadata was found fresh.
        failure: why the last attempt to update ended, empty when it did not fail.
        not_before: Unix time before which the server asked not to be asked again.
    """

    current: str | None = None
    previous: str | None = None
    step: str = "idle"
    candidate: str | None = None
    since: float = 0.0
    starts: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    clock: float = 0.0
    failure: str = ""
    not_before: float = 0.0

    @property
    def on_probation(self) -> bool:
        """Whether the current version still has to prove itself in use."""
        return self.since > 0

    def switch(self, key: str, now: float) -> None:
        """Let a proven bundle serve, on probation; the last one that was committed is kept."""
        if not self.on_probation and key != self.current:
            self.previous = self.current
        self.current, self.candidate = key, None
        self.step, self.since, self.starts = "switched", now, 0

    def commit(self) -> None:
        """The version on probation stays; an update that goes on beside it, does."""
        self.since, self.starts = 0.0, 0
        if self.step == "switched":
            self.step = "idle"

    def go_back(self, why: str) -> None:
        """The previous version serves again; the current one is remembered as refused."""
        assert self.current is not None
        assert self.previous is not None
        self.refuse(self.current, why)
        self.current, self.previous = self.previous, None
        self.commit()

    def refuse(self, key: str, why: str) -> None:
        """Do not try a bundle again."""
        self.refused.pop(key, None)
        self.refused[key] = why
        for oldest in list(self.refused)[:-MAX_REFUSED]:
            del self.refused[oldest]


class Home:
    """Opened state folder.

    Raises:
        EdgeError: the folder was not provisioned, or its files are damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.device = _read_device(self.path)

    @property
    def root(self) -> bytes:
        """The root of trust."""
        return (self.path / "root.json").read_bytes()

    @property
    def spool(self) -> Path:
        """What awaits its upload."""
        return self.path / "spool"

    def bundle(self, key: str) -> Path:
        """The folder of a verified bundle."""
        return self.path / "bundles" / key

    def incoming(self, key: str) -> Path:
        """The folder of a bundle on its way."""
        return self.path / "incoming" / key

    def read(self) -> Record:
        """The record as it is now.

        Raises:
            EdgeError: it is damaged.
        """
        path = self.path / "state.json"
        try:
            return Record(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return Record()
        except (ValueError, TypeError) as error:
            raise EdgeError(
                f"{path} is damaged: {error}. Remove it: the next update takes what lies in {self.path / 'bundles'} "
                "where it is still the published one, and fetches the rest."
            ) from None

    @contextmanager
    def edit(self) -> Iterator[Record]:
        """Change the record: read, handed out, written durably when it differs; one at a time over all processes."""
        with self.locked("state", wait=True):
            record = self.read()
            before = dataclasses.asdict(record)
            yield record
            if dataclasses.asdict(record) != before:
                durable.write_json(self.path / "state.json", dataclasses.asdict(record))

    @contextmanager
    def locked(self, name: str, *, wait: bool = False, shared: bool = False) -> Iterator[bool]:
        """Hold NAME.lock; yields whether it was got, at once unless `wait`. The kernel lets go of a dead holder's."""
        with (self.path / f"{name}.lock").open("a") as stream:
            try:
                fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def hold(self) -> Any:
        """'Not now': while the context is open, no update is tried out or switched to, here and in other processes."""
        return self.locked("hold", wait=True, shared=True)

    def is_held(self) -> bool:
        """Whether an application says 'not now'."""
        for _ in range(3):  # another process that looks, at this very moment, is none
            with self.locked("hold") as free:
                if free:
                    return False
            time.sleep(0.01)
        return True

    def tidy(self, record: Record) -> None:
        """Remove bundles and unfinished downloads that the record does not speak of, and what kills left behind."""
        import shutil  # brings compressors that a serving process has no use for

        kept = {record.current, record.previous, record.candidate}
        for folder in ("bundles", "incoming"):
            for place in (self.path / folder).glob("*"):
                if place.name not in kept:
                    shutil.rmtree(place, ignore_errors=True)


def _read_device(folder: Path) -> Device:
    path = folder / "device.json"
    try:
        found = json.loads(path.read_bytes())
        return Device(**{**found, "settings": _settings(path, found.get("settings", {}))})
    except FileNotFoundError:
        raise EdgeError(
            f"{path} is missing: {folder} is no state folder of a device. "
            f"Next: limbeck-edge init PROVISIONED --home {folder}, with the folder that `limbeck provision` wrote."
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise EdgeError(f"{path} is not what `limbeck-edge init` writes: {error}. Run it again.") from None


def _settings(path: Path, found: dict[str, Any]) -> Settings:
    known = {f.name: f.default for f in dataclasses.fields(Settings)}
    for name, value in found.items():
        if name not in known:
            raise EdgeError(f"{path}: no setting {name!r}; there are {', '.join(known)}.")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if not is_number and not (value is None and known[name] is None):
            raise EdgeError(f"{path}: {name} is {value!r}; expected a number from 0 on.")
    return Settings(**found)


def init(provisioned: Path, home: Path) -> Home:
    """Provision a device: who to ask, whom to trust, a random id. Again with the same root it keeps its id and state.

    Args:
        provisioned: folder with `device.json` (server, metadata, model, perhaps reports and settings) and `root.json`.
        home: the state folder, made when missing.

    Raises:
        EdgeError: `provisioned` lacks a file, or the device trusts another root already.

    """
    try:
        root = (provisioned / "root.json").read_bytes()
        described = json.loads((provisioned / "device.json").read_bytes())
        fields = {name: str(described[name]) for name in ("metadata", "model")}
        fields["server"] = described["server"]
    except OSError as error:
        raise EdgeError(
            f"{error.filename}: {error.strerror}; expected the folder that `limbeck provision NAME --out FOLDER` writes."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeError(
            f"{provisioned / 'device.json'} is no provisioning: {error!r}. Run `limbeck provision` again."
        ) from None
    identity, settings = os.urandom(8).hex(), {}
    if (home / "device.json").is_file():
        known = Home(home)
        if known.root != root:
            raise EdgeError(
                f"{home} trusts another root than {provisioned / 'root.json'}. A new root comes signed by the old one, with "
                "an update. To trust this one instead, make a new home."
            )
        identity, settings = known.device.id, dataclasses.asdict(known.device.settings)
    for name in ("bundles", "incoming", "tuf", "spool"):
        (home / name).mkdir(parents=True, exist_ok=True)
    device = Device(
        **fields,
        id=identity,
        reports=described.get("reports"),
        settings=_settings(provisioned / "device.json", {**settings, **described.get("settings", {})}),
    )
    durable.write_bytes(home / "root.json", root)
    durable.write_json(home / "device.json", dataclasses.asdict(device))
    return Home(home)

"""Which version serves whom: publish, roll back, renew, provision. The signed targets say it, MLflow and the ledger repeat it.

One target per role of a model, `NAME/champion` and perhaps `NAME/canary`: the bundle's manifest, with

    serial       the registry's number of the version
    artifacts    where the bundle lies
    share_ppm    canary only: which part of the fleet takes it, in millionths (signed JSON has no fractions)
    salt         canary only: what a device hashes its id with to know whether it belongs to that part
    began        canary only: Unix time from which on it is a canary, with whatever share
    since        canary only: Unix time from which on it has the present share
    history      champion only: what was served before, newest first, so that going back needs no trust in the registry
    rolled_back  champion only: the serial that was taken back
"""

import json
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api.metadata import TargetFile, Targets

from limbeck import ledger
from limbeck import params as params_file
from limbeck.atomic import replace, write_json
from limbeck.edge import manifest as manifest_file
from limbeck.errors import PublishingError
from limbeck.publishing.bundle import Registered
from limbeck.publishing.keys import KEYS, ONLINE, Keys, NewKey, now
from limbeck.publishing.metadata import TIMESTAMP, SignedMetadata
from limbeck.publishing.places import Folder, Place, Registry
from limbeck.tracking.delivery import Server
from limbeck.tracking.server import home_of, tracking_uri

CHAMPION, CANARY, CANDIDATE = "champion", "canary", "candidate"
ALIASES = (CHAMPION, CANARY)
NUM_KEPT = 10
"""How many earlier versions one can go back to."""
WARN_DAYS = 30
NOTHING = "none"
SERVED = "served as {}"
"""What the ledger calls the alias of a published version."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """A version as the signed targets name it."""

    serial: int
    artifacts: str
    length: int
    sha256: str

    @classmethod
    def of(cls, target: TargetFile) -> "Served":
        """What a target names."""
        said = target.custom or {}
        return cls(int(said["serial"]), str(said["artifacts"]), target.length, target.hashes["sha256"])

    def target(self, name: str, custom: dict[str, Any]) -> TargetFile:
        """The target that names it."""
        return TargetFile(self.length, {"sha256": self.sha256}, name, {"custom": custom})


@dataclass(frozen=True)
class Canary:
    """A canary as the signed targets name it.

    Attributes:
        served: the version.
        share: of the fleet that takes it.
        salt: what devices hash their id with.
        began: Unix time from which on it is a canary.
        since: Unix time from which on it has this share.
        champion: what all others have, None when nothing was published for them.

    """

    served: Served
    share: float
    salt: str
    began: int
    since: int
    champion: Served | None


class Publisher:
    """Who publishes where.

    Args:
        keys: to sign with.
        place: where devices fetch from.
        registry: where versions come from, and what shows which of them is served.
        ledger_file: see `limbeck.ledger`.
        say: told what happens.

    """

    def __init__(
        self, keys: Keys, place: Place, *, registry: Registry, ledger_file: Path, say: Say = lambda _: None
    ) -> None:
        self.keys, self.place, self.registry, self.ledger_file, self.say = keys, place, registry, ledger_file, say

    @classmethod
    def of(
        cls,
        workspace: Path,
        *,
        keys: Path | None = None,
        uri: str | None = None,
        stick: bool = False,
        say: Say = lambda _: None,
    ) -> "Publisher":
        """A workspace's publisher: its keys, its tracking server, its ledger.

        Args:
            workspace: the folder with params.yaml.
            keys: the folder of keys; by itself `keys/` of the project.
            uri: the tracking server; by itself MLFLOW_TRACKING_URI, else what params.yaml declares.
            stick: without a server, publish into the project's `published/`, which sticks are copied from.
            say: told what happens.

        Raises:
            ParamsError: there is no params.yaml, or it is none.
            PublishingError: there are no keys; or there is no server, and no stick is meant.
            TrackingError: the server does not answer or fails.

        """
        home = home_of(workspace)
        opened = Keys.open(keys or home / KEYS)
        address = uri or tracking_uri(params_file.load(workspace / "params.yaml").tracking.uri, workspace)
        place: Place = Folder(home / "published") if stick and not address.startswith("http") else Server(address)
        return cls(opened, place, registry=Registered(address), ledger_file=home / ledger.NAME, say=say)

    def publish(
        self,
        model: str,
        alias: str = CHAMPION,
        *,
        serial: int | None = None,
        share: float | None = None,
        only: Canary | None = None,
    ) -> int:
        """Let a version serve under an alias; its serial. Done before: nothing is signed again.

        Args:
            model: name of the registered model.
            alias: champion, or canary, which a share of the fleet takes.
            serial: the version; by itself the registry's champion, or its candidate for a canary.
            share: of the fleet, above 0 and up to 1; for a canary alone.
            only: publish this canary's version, and only while it is the canary and as it is here.

        Raises:
            PublishingError: not enough keys can sign here, the metadata there are not to be trusted, or the canary is
                another one by now.
            TrackingError: the server does not answer or fails, or has no such version.

        """
        _check(model, alias, share)
        if alias == CANARY and share is None:
            raise PublishingError("a canary needs the share of the fleet that takes it, e.g. --share 0.1.")
        if only is not None:
            serial = only.served.serial
        if serial is None:
            serial = self.registry.serial_at(model, CHAMPION if alias == CHAMPION else CANDIDATE)
        self._can_sign(Targets.type, *ONLINE)
        served = only.served if only is not None else _named(self._targets(), model, serial)
        if served is None or not self._is_whole(served):
            with tempfile.TemporaryDirectory() as folder:
                digest = self.registry.make_bundle(model, serial, Path(folder))
                artifacts = self.place.keep(model, digest, Path(folder))
                length = (Path(folder) / manifest_file.NAME).stat().st_size
            served = Served(serial, artifacts, length, digest)
        self._serve(model, alias, served, share=share, only=only)
        return serial

    def canary(self, model: str) -> Canary | None:
        """A model's canary, None when it has none.

        Raises:
            PublishingError: the metadata there are not to be trusted, or the canary is of an earlier Limbeck.
            TrackingError: the server does not answer or fails.

        """
        return _canary(self._targets(), model)

    def models(self) -> list[str]:
        """What is published. Raises what `canary` does."""
        return sorted({name.rpartition("/")[0] for name in self._targets()})

    def serves(self, model: str, serial: int) -> bool:
        """Whether a version is the champion. Raises what `canary` does."""
        champion = self._targets().get(f"{model}/{CHAMPION}")
        return champion is not None and Served.of(champion).serial == serial

    def manifest(self, served: Served) -> bytes:
        """A version's manifest, held against its signed digest.

        Raises:
            PublishingError: it is not there, or not the one that was signed.
            TrackingError: the server does not answer or fails.

        """
        return self._fetch(served.artifacts, manifest_file.NAME, served.length, served.sha256)

    def settle(self, model: str, *, champion: bool) -> None:
        """Finish in registry and ledger what a kill left undone after it was signed, of the canary and perhaps the champion.

        Raises:
            PublishingError: the metadata there are not to be trusted.
            TrackingError: the server does not answer or fails.

        """
        present = self._targets()
        for alias in ALIASES if champion else (CANARY,):
            target = present.get(f"{model}/{alias}")
            if target is not None or alias == CANARY:
                self._repeat(model, alias, target.custom or {} if target else None)

    def roll_back(self, model: str, to: int | None = None) -> int:
        """Let an earlier version serve as champion again, under newer metadata; its serial. Done before: nothing happens.

        Args:
            model: name of the registered model.
            to: the version; by itself the one that served before.

        Raises:
            PublishingError: none served before, or not that one; it was rolled back already; keys or metadata fail.
            TrackingError: the server does not answer or fails.

        """
        _check(model, CHAMPION, None)
        self._can_sign(Targets.type, *ONLINE)
        present = self._targets()
        target = present.get(f"{model}/{CHAMPION}")
        if target is None:
            raise PublishingError(f"{model} is not published at {self.place.name}; `limbeck publish {model}` does it.")
        said = target.custom or {}
        history = [Served(**entry) for entry in said.get("history", [])]
        known = ", ".join(str(entry.serial) for entry in history) or "none"
        if to is None and said.get("rolled_back") is not None:
            self.say(
                f"{model} was rolled back from version {said['rolled_back']} to {said['serial']}; to go further back "
                f"name one: --to SERIAL (served before: {known})"
            )
            to = int(said["serial"])
        chosen = next((entry for entry in [Served.of(target), *history] if to in (None, entry.serial)), None)
        if to is None:
            chosen = history[0] if history else None
        if chosen is None:
            raise PublishingError(
                f"{model} cannot go back{'' if to is None else f' to version {to}'}: served before were {known}. "
                f"`limbeck publish {model} --serial N` makes any registered version the champion."
            )
        if not self._is_whole(chosen):
            raise PublishingError(
                f"the bundle of version {chosen.serial} is no longer whole at {self.place.name}; `limbeck publish {model} "
                f"--serial {chosen.serial}` uploads it again and serves it."
            )
        self._serve(model, CHAMPION, chosen, rolled_back=True)
        return chosen.serial

    def withdraw(self, model: str, *, only: Canary | None = None) -> None:
        """Take a canary back: its devices get the champion.

        Args:
            model: name of the registered model.
            only: while it is this one and as it is here.

        Raises:
            PublishingError: keys or metadata fail, or the canary is another one by now.
            TrackingError: the server does not answer or fails.

        """
        _check(model, CANARY, None)
        self._can_sign(Targets.type, *ONLINE)
        with self.place.turn():
            metadata = SignedMetadata(self.place, self.keys)
            _expect(metadata.targets().targets, model, only)
            metadata.take_over_roots()
            name = f"{model}/{CANARY}"
            if name in metadata.targets().targets:
                with metadata.edit_targets() as targets:
                    del targets.targets[name]
                metadata.make_visible()
        self._repeat(model, CANARY, None)

    def renew(self, *, everything: bool = False) -> None:
        """Sign snapshot and timestamp anew, with the online keys; their life begins again.

        Args:
            everything: root and targets, too; their keys are needed.

        Raises:
            PublishingError: nothing was published; a key is not here; the metadata there are not to be trusted.
            TrackingError: the server does not answer or fails.

        """
        self._can_sign(*((Targets.type,) if everything else ()), *ONLINE)
        with self.place.turn():
            metadata = SignedMetadata(self.place, self.keys)
            if metadata.is_empty:
                raise PublishingError(f"nothing is published at {self.place.name}; `limbeck publish NAME` does it.")
            if everything:
                self.keys.sign_root(deepcopy(self.keys.root))
                metadata.take_over_roots()
                with metadata.edit_targets():
                    pass
            metadata.make_visible(renewed=True)
            expiries = {"root": self.keys.root.expires, "targets": metadata.targets().expires}
            until = metadata.timestamp().expires
        self.say(f"metadata version {metadata.version} at {self.place.name} hold until {until:%Y-%m-%d %H:%M} UTC")
        for role, expires in expiries.items():
            if (days := (expires - now()).days) < WARN_DAYS:
                self.say(
                    f"{role} metadata expire in {days} days; `limbeck renew --all`, with its key, makes them last longer"
                )

    def rotate(self, role: str, new: NewKey) -> None:
        """Give a role another key and bring the root that says so into force; one that was cut off is finished.

        Raises:
            PublishingError: keys or metadata fail.
            TrackingError: the server does not answer or fails.

        """
        with self.place.turn():
            metadata = SignedMetadata(self.place, self.keys)
            if not metadata.is_pending(role):
                self.keys.next_root(role, new)
            metadata.take_over_roots()
        self.say(f"root version {self.keys.root.version} is in force at {self.place.name}")

    def provision(self, model: str, out: Path, *, server: str | None = None, reports: bool = False) -> None:
        """Write what a device starts from: `device.json` and the trusted `root.json`.

        Args:
            model: name of the registered model.
            out: the folder.
            server: the address by which devices reach the server, when it is not the publisher's.
            reports: whether the device is to tell how its versions do.

        Raises:
            PublishingError: the model is not published there, or nobody can report to a folder.
            TrackingError: the server does not answer or fails.

        """
        _check(model, CHAMPION, None)
        metadata = SignedMetadata(self.place, self.keys)
        if f"{model}/{CHAMPION}" not in metadata.targets().targets:
            raise PublishingError(
                f"{model} is not published at {self.place.name}; a device would find nothing. `limbeck publish {model}`."
            )
        root = self.keys.root_bytes(metadata.num_roots)
        with replace(out / "root.json") as partial:
            partial.write_bytes(root)
        address = server or self.place.server
        told = {"reports": self.place.reports()} if reports else {}
        write_json(out / "device.json", {"server": address, "metadata": self.place.metadata, "model": model, **told})

    def copy_to(self, stick: Folder, model: str) -> None:
        """Copy a model's bundles and the metadata into a folder, held against their signatures on the way.

        Raises:
            PublishingError: the model is not published, or a file is not the one that was.
            TrackingError: the server does not answer or fails.

        """
        with self.place.turn():
            metadata = SignedMetadata(self.place, self.keys)
            present = metadata.targets().targets
            chosen = [present[name] for alias in ALIASES if (name := f"{model}/{alias}") in present]
            if not chosen:
                raise PublishingError(
                    f"{model} is not published at {self.place.name}; `limbeck publish {model}` does it."
                )
            for target in chosen:
                for name, content in self._files_of(served := Served.of(target)):
                    stick.put(served.artifacts, name, content)
            metadata.make_visible(renewed=True)  # the way to the device may take its days
            snapshot = metadata.timestamp().snapshot_meta.version
            targets = metadata.snapshot().meta[f"{Targets.type}.json"].version
            names = [f"{number}.root.json" for number in range(1, metadata.num_roots + 1)]
            for name in (*names, f"{targets}.targets.json", f"{snapshot}.snapshot.json", TIMESTAMP):
                stick.write(name, self.place.read(name) or b"")

    def _files_of(self, served: Served) -> Iterator[tuple[str, bytes]]:
        """A bundle's files, the manifest last, each held against its digest.

        Raises:
            PublishingError: a file is missing, or not the one that was signed.
            TrackingError: the server does not answer or fails.

        """
        described = self.manifest(served)
        for name, expected in json.loads(described)["files"].items():
            yield name, self._fetch(served.artifacts, name, expected["bytes"], expected["sha256"])
        yield manifest_file.NAME, described

    def _fetch(self, artifacts: str, name: str, length: int, digest: str) -> bytes:
        content = self.place.fetch(artifacts, name)
        if (len(content), sha256(content).hexdigest()) != (length, digest):
            raise PublishingError(
                f"{artifacts}/{name} at {self.place.name} is not the file that was signed; publish that version again."
            )
        return content

    def _is_whole(self, served: Served) -> bool:
        """Whether a bundle is there as it was signed."""
        try:
            return all(True for _ in self._files_of(served))
        except PublishingError:
            return False

    def _targets(self) -> dict[str, TargetFile]:
        return dict(SignedMetadata(self.place, self.keys).targets().targets)

    def _can_sign(self, *roles: str) -> None:
        """Say before anything is written that a key is missing; ask for a password now and not during a turn."""
        for role in roles:
            self.keys.enough(role)

    def _serve(
        self,
        model: str,
        alias: str,
        served: Served,
        *,
        share: float | None = None,
        rolled_back: bool = False,
        only: Canary | None = None,
    ) -> None:
        """Sign, unless it is so already; then mirror and record."""
        name, share_ppm = f"{model}/{alias}", None if share is None else round(share * 1e6)
        with self.place.turn():
            metadata = SignedMetadata(self.place, self.keys)
            _expect(metadata.targets().targets, model, only)
            metadata.take_over_roots()
            present = metadata.targets().targets.get(name)
            old = (present.custom or {}) if present else {}
            before = Served.of(present) if present else None
            changed = before != served or old.get("share_ppm") != share_ppm
            custom: dict[str, Any] = old
            if changed:
                custom = {"serial": served.serial, "artifacts": served.artifacts}
                if alias == CANARY:
                    moment = int(now().timestamp())
                    kept = {key: old[key] for key in ("salt", "began") if before == served and key in old}
                    custom |= {"salt": secrets.token_hex(8), "began": moment, **kept}
                    custom |= {"share_ppm": share_ppm, "since": moment}
                else:
                    custom |= {"history": _history(before, served, old.get("history", []))}
                    custom |= {"rolled_back": before.serial} if rolled_back and before else {}
                with metadata.edit_targets() as targets:
                    targets.targets[name] = served.target(name, custom)
                    other = targets.targets.get(f"{model}/{CANARY}")
                    if alias == CHAMPION and other and Served.of(other) == served:
                        del targets.targets[f"{model}/{CANARY}"]  # what everybody has needs no share
                metadata.make_visible()
            has_canary = f"{model}/{CANARY}" in metadata.targets().targets
        self.say(f"{model} version {served.serial} {'is' if changed else 'was'} {alias} at {self.place.name}")
        self._repeat(model, alias, custom)
        if alias == CHAMPION and not has_canary:
            self._repeat(model, CANARY, None)

    def _repeat(self, model: str, alias: str, custom: dict[str, Any] | None) -> None:
        """Mirror what is signed in the registry and write it to the ledger, unless that was done."""
        number = None if custom is None else str(custom["serial"])
        why = f"{_why(alias, custom)}, at {self.place.name}"
        own = (model, SERVED.format(alias))
        last = next((e for e in reversed(ledger.read(self.ledger_file)) if (e.model, e.alias) == own), None)
        if (last.version, last.why) != (number or NOTHING, why) if last else number is not None:
            self._record(*own, last.version if last else None, number or NOTHING, why)
        shown = self.registry.mirror(model, alias, number)
        if number is not None and shown != number:
            self._record(model, alias, shown, number, f"mirrors what is served: {why}")

    def _record(self, model: str, alias: str, previous: str | None, version: str, why: str) -> None:
        ledger.append(
            self.ledger_file, ledger.now(model=model, alias=alias, previous=previous, version=version, why=why)
        )


def _canary(present: dict[str, TargetFile], model: str) -> Canary | None:
    """See `Publisher.canary`."""
    target, champion = (present.get(f"{model}/{alias}") for alias in (CANARY, CHAMPION))
    if target is None:
        return None
    said = target.custom or {}
    served, share = Served.of(target), int(said["share_ppm"]) / 1e6
    if "since" not in said:
        again = f"limbeck publish {model} --alias {CANARY} --serial {served.serial} --share"
        raise PublishingError(
            f"the canary of {model} does not say since when it has its share; `limbeck rollback {model} --alias {CANARY}`, "
            f"then `{again} {share:g}` begins anew."
        )
    return Canary(
        served,
        share,
        str(said["salt"]),
        int(said["began"]),
        int(said["since"]),
        None if champion is None else Served.of(champion),
    )


def _expect(present: dict[str, TargetFile], model: str, only: Canary | None) -> None:
    """Whether nobody changed a canary since it was looked at.

    Raises:
        PublishingError: somebody did.

    """
    if only is not None and _canary(present, model) != only:
        raise PublishingError(
            f"what is published of {model} changed while its canary was judged; nothing was done. The same command looks "
            "again."
        )


def _named(present: dict[str, TargetFile], model: str, serial: int) -> Served | None:
    """A version that the signed targets name or have named: its bundle is there and its digest known."""
    for alias in ALIASES:
        if target := present.get(f"{model}/{alias}"):
            history = [Served(**entry) for entry in (target.custom or {}).get("history", [])]
            for served in (Served.of(target), *history):
                if served.serial == serial:
                    return served
    return None


def _history(before: Served | None, served: Served, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was served, newest first: the version that goes joins, the one that comes leaves."""
    entries = [*([vars(before)] if before else []), *history]
    unique = {entry["serial"]: entry for entry in reversed(entries) if entry["serial"] != served.serial}
    return list(reversed(unique.values()))[:NUM_KEPT]


def _why(alias: str, custom: dict[str, Any] | None) -> str:
    """What the signed entry says of itself."""
    if custom is None:
        return "no canary"
    if alias == CANARY:
        return f"rolled out to {custom['share_ppm'] / 1e6:g} of the fleet"
    return f"rolled back from {custom['rolled_back']}" if "rolled_back" in custom else "published"


def _check(model: str, alias: str, share: float | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", model):
        raise PublishingError(f"{model!r} cannot be published; expected letters, digits, dot, dash and underscore.")
    if alias not in ALIASES:
        raise PublishingError(f"nothing is served as {alias!r}; expected {' or '.join(ALIASES)}.")
    if share is not None and (alias != CANARY or not 1e-6 <= share <= 1):
        raise PublishingError(
            f"--share {share:g} is for a canary, above 0 and up to 1; the champion serves all others."
        )

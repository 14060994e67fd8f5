"""Signing keys: four roles, the root metadata that says which key may sign what, and where each private key is.

    keys/  .gitignore         `*`: nothing here ever enters git
           root.pem ...       private keys (mode 0600) that live here; others live where their URI says
           signers.json       key id -> URI of the private key, public key
           1.root.json ...    every root so far; the last one is in force
           versions.json      the newest metadata seen at each place: a server that falls behind it is refused

A private key is named by a URI of securesystemslib (`file2:`, `hsm:`, `awskms:`, `gcpkms:`, `azurekms:`, ...), so that
root and targets keys may be anywhere. `LIMBECK_KEY_ROOT`, `_TARGETS`, `_SNAPSHOT`, `_TIMESTAMP` override the URI.
"""

import fcntl
import functools
import getpass
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer, SSlibKey
from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from limbeck.atomic import replace, write_json
from limbeck.errors import PublishingError

ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
ONLINE = (Snapshot.type, Timestamp.type)
"""The roles that `renew` signs: their keys lie on the machine that runs the schedule."""
LIFETIME_DAYS = {Root.type: 365, Targets.type: 365, Snapshot.type: 14, Timestamp.type: 3}
DAYS = "x-limbeck-days"
"""Where a role's entry in the root says how long its metadata are valid."""
FILE = f"{CryptoSigner.SCHEME}:"
KEYS, SIGNERS, VERSIONS = "keys", "signers.json", "versions.json"


@dataclass(frozen=True)
class KeyRow:
    """What `limbeck keys show` tells of a key. `where` is its URI, or why it cannot sign here."""

    role: str
    threshold: int
    keyid: str
    where: str
    can_sign: bool


@dataclass(frozen=True)
class NewKey:
    """How a role gets another key.

    Attributes:
        uri: where it is; by itself a new file in the folder of keys.
        public: its public key (PEM), where the URI is no file.
        add: beside the role's present keys instead of in their place.
        threshold: how many of the role's keys have to sign from then on; by itself as many as now.

    """

    uri: str | None = None
    public: Path | None = None
    add: bool = False
    threshold: int | None = None


def now() -> datetime:
    """The present moment, in the whole seconds that metadata take."""
    return datetime.now(UTC).replace(microsecond=0)


def _new_private_key(path: Path) -> CryptoSigner:
    """Make an Ed25519 key and store it where no file is yet, readable by its owner alone."""
    signer = CryptoSigner.generate_ed25519()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(signer.private_bytes)
        stream.flush()
        os.fsync(stream.fileno())
    return signer


def _key_at(uri: str, public: Path | None, folder: Path) -> Key:
    """The public key of a URI: from a PEM file, from the private key's own file, or from a new one made there."""
    scheme = uri.partition(":")[0]
    if scheme not in SIGNER_FOR_URI_SCHEME:
        raise PublishingError(
            f"{uri!r} is no key that can be reached; expected a URI that begins with one of "
            f"{', '.join(f'{known}:' for known in sorted(SIGNER_FOR_URI_SCHEME))} (securesystemslib's signers)."
        )
    try:
        if public is not None:
            return SSlibKey.from_crypto(load_pem_public_key(public.read_bytes()))
        if scheme != CryptoSigner.SCHEME:
            raise PublishingError(
                f"the public key of {uri} is missing; export it as PEM and name the file: --public ROLE=FILE."
            )
        path = folder / uri.removeprefix(FILE)
        if not path.exists():
            return _new_private_key(path).public_key
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None)).public_key
    except (ValueError, TypeError) as error:
        raise PublishingError(f"{public or uri} is no PEM key without a password: {error}.") from None
    except FileNotFoundError as error:
        raise PublishingError(f"{error.filename} is missing; expected a public key (PEM).") from None


@functools.cache
def _secret(name: str) -> str:
    """Ask for what a hardware key needs, once."""
    return getpass.getpass(f"{name}: ")


@dataclass
class Keys:
    """A folder of keys: the roots so far, oldest first, and where each private key is, by key id."""

    folder: Path
    signers: dict[str, dict[str, Any]]
    roots: list[Metadata[Root]]

    @classmethod
    def open(cls, folder: Path) -> "Keys":
        """Read a folder and hold every root against the one before.

        Raises:
            PublishingError: it is missing, or what lies in it is not what `init` and `rotate` make.

        """
        if not (folder / "1.root.json").is_file():
            raise PublishingError(f"there are no signing keys in {folder}; make them with `limbeck keys init`.")
        try:
            keys = cls(folder, json.loads((folder / SIGNERS).read_text(encoding="utf-8")), [])
            for number in range(1, 1 + len(list(folder.glob("[0-9]*.root.json")))):
                keys.add_root(keys.root_bytes(number))
        except FileNotFoundError as error:
            raise PublishingError(f"{error.filename} is missing; restore {folder} from your copy of it.") from None
        except ValueError as error:
            raise PublishingError(f"{folder} is damaged ({error}); restore it from your copy of it.") from None
        return keys

    @property
    def root(self) -> Root:
        """The root in force: whoever may sign what."""
        return self.roots[-1].signed

    def add_root(self, content: bytes) -> None:
        """Take up the next root, held against the one before and against itself; written down here, too.

        Raises:
            PublishingError: it is not the next one, or not signed as the one before demands.

        """
        number = len(self.roots) + 1
        try:
            found: Metadata[Root] = Metadata.from_bytes(content)
            assert isinstance(found.signed, Root)
            if found.signed.version != number:
                raise ValueError(f"it says version {found.signed.version}")
            for judge in (self.root if self.roots else found.signed, found.signed):
                judge.verify_delegate(Root.type, found.signed_bytes, found.signatures)
        except Exception as error:  # parsing and verifying raise many kinds
            raise PublishingError(
                f"root version {number} is not signed by the keys of the one before ({error}). Do not publish: the "
                f"place was changed by someone else, or {self.folder} belongs to another one."
            ) from None
        self.roots.append(found)
        path = self.folder / f"{number}.root.json"
        if not path.exists():
            with replace(path) as partial:
                partial.write_bytes(content)

    def root_bytes(self, number: int) -> bytes:
        """The metadata file of a root version."""
        return (self.folder / f"{number}.root.json").read_bytes()

    def uri_of(self, keyid: str, role: str) -> str | None:
        """Where a private key is, if anything says it."""
        said = os.environ.get(f"LIMBECK_KEY_{role.upper()}") or self.signers.get(keyid, {}).get("uri")
        if said is None or not said.startswith(FILE):
            return said
        return f"{FILE}{self.folder.resolve() / said.removeprefix(FILE)}"

    def _signer(self, keyid: str, key: Key, role: str) -> Signer:
        """A signer of a key.

        Raises:
            PublishingError: it is not here; the text is the reason alone.

        """
        uri = self.uri_of(keyid, role)
        if uri is None:
            raise PublishingError("nothing says where it is")
        try:
            return Signer.from_priv_key_uri(uri, key, _secret)
        except FileNotFoundError:
            raise PublishingError(f"{uri} is missing") from None
        except Exception as error:  # a signer of a key service raises what its library raises
            raise PublishingError(f"{uri}: {' '.join(str(error).split()) or type(error).__name__}") from None

    def available(self, role: str, root: Root | None = None) -> list[Signer]:
        """Every key of a role that can sign here."""
        found, _ = self._split(role, root or self.root)
        return found

    def enough(self, role: str, root: Root | None = None) -> list[Signer]:
        """As many keys of a role as its threshold asks for.

        Raises:
            PublishingError: fewer can sign here, with the reason for each.

        """
        root = root or self.root
        found, reasons = self._split(role, root)
        if len(found) < root.roles[role].threshold:
            raise PublishingError(
                f"{role} needs {root.roles[role].threshold} signature(s), {len(found)} of its keys can sign here: "
                f"{'; '.join(reasons)}. Bring the key back, or say where it is: LIMBECK_KEY_{role.upper()}=URI."
            )
        return found

    def _split(self, role: str, root: Root) -> tuple[list[Signer], list[str]]:
        found, reasons = [], []
        for keyid in root.roles[role].keyids:
            try:
                found.append(self._signer(keyid, root.keys[keyid], role))
            except PublishingError as error:
                reasons.append(f"{keyid[:8]}... ({error})")
        return found, reasons

    def rows(self) -> list[KeyRow]:
        """Every key of the root in force."""
        rows = []
        for role in ROLES:
            for keyid in self.root.roles[role].keyids:
                try:
                    self._signer(keyid, self.root.keys[keyid], role)
                    where, can_sign = self.uri_of(keyid, role) or "", True
                except PublishingError as error:
                    where, can_sign = str(error), False
                rows.append(KeyRow(role, self.root.roles[role].threshold, keyid, where, can_sign))
        return rows

    def next_root(self, role: str, new: NewKey) -> Root:
        """Write the next root here: a new key for a role.

        Signed by the keys of the root in force and, for root's own role, by the new ones. Places get it with the
        next edit. Interrupted: the same command goes on with the key file it made.

        Raises:
            PublishingError: root's keys are not here, or the new key is none; a threshold that no one can meet.

        """
        root = deepcopy(self.root)
        number = root.version + 1
        self.enough(Root.type)  # before a key is made
        uri = new.uri or f"{FILE}{role}-{number}.pem"
        key = _key_at(uri, new.public, self.folder)
        self.signers[key.keyid] = {"uri": uri, "key": key.to_dict()}
        write_json(self.folder / SIGNERS, self.signers)
        if not new.add:
            for keyid in list(root.roles[role].keyids):
                root.revoke_key(keyid, role)
        root.add_key(key, role)
        if new.threshold is not None:
            root.roles[role].threshold = new.threshold
        if not 1 <= root.roles[role].threshold <= len(root.roles[role].keyids):
            raise PublishingError(
                f"{role} would have {len(root.roles[role].keyids)} key(s) and need {root.roles[role].threshold}; "
                "choose --threshold between 1 and the number of its keys, or --add a key to those it has."
            )
        self.sign_root(root)
        return self.root

    def sign_root(self, root: Root) -> None:
        """Make changed content the next root: version and expiry set, signed by old and new keys, written here.

        Raises:
            PublishingError: not enough of them can sign here.

        """
        before = self.root
        root.version, root.expires = before.version + 1, now() + lifetime(root, Root.type)
        signed = Metadata(root)
        for signer in {s.public_key.keyid: s for r in (before, root) for s in self.enough(Root.type, r)}.values():
            signed.sign(signer, append=True)
        self.add_root(signed.to_bytes())

    def seen(self, place: str) -> int:
        """The newest metadata version that this folder knows of at a place; 0 for none."""
        return int(self._versions().get(place, 0))

    def highest(self) -> int:
        """The newest metadata version at any place: a stick and a server are served from one line of versions."""
        return max(self._versions().values(), default=0)

    def saw(self, place: str, version: int) -> None:
        """Remember the newest version at a place."""
        with self._alone():
            known = self._versions()
            if known.get(place, 0) < version:
                write_json(self.folder / VERSIONS, known | {place: version})

    def _versions(self) -> dict[str, int]:
        path = self.folder / VERSIONS
        if not path.exists():
            return {}
        found: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def lifetime(root: Root, role: str) -> timedelta:
    """How long a role's metadata are valid from their signing on."""
    return timedelta(days=int(root.roles[role].unrecognized_fields.get(DAYS, LIFETIME_DAYS[role])))


def init(
    folder: Path,
    *,
    uris: Mapping[str, str] | None = None,
    public: Mapping[str, Path] | None = None,
    days: Mapping[str, int] | None = None,
) -> Keys:
    """Make a folder of keys: whole, or not at all.

    Args:
        folder: the new folder; an existing one is never touched.
        uris: where a role's key is when not here. A `file2:` key is made there unless there is one.
        public: public keys (PEM) of the URIs that are no files.
        days: how long a role's metadata stay valid.

    Raises:
        PublishingError: the folder exists; a URI or a public key is none.

    """
    if folder.exists() and any(folder.iterdir()):
        raise PublishingError(
            f"{folder} exists, and keys are never overwritten: devices in the field trust them. `limbeck keys show` "
            "tells what is there, `limbeck keys rotate ROLE` replaces a key."
        )
    for role in {*(uris or {}), *(public or {}), *(days or {})}:
        check_role(role)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    (partial / ".gitignore").write_text("*\n", encoding="utf-8")
    root = Root(consistent_snapshot=True)
    signers = {}
    for role in ROLES:
        uri = (uris or {}).get(role) or f"{FILE}{role}.pem"
        key = _key_at(uri, (public or {}).get(role), partial)
        signers[key.keyid] = {"uri": uri, "key": key.to_dict()}
        root.roles[role] = Role([], 1, {DAYS: (days or {}).get(role, LIFETIME_DAYS[role])})
        root.add_key(key, role)
    write_json(partial / SIGNERS, signers)
    root.expires = now() + lifetime(root, Root.type)
    signed = Metadata(root)
    made = Keys(partial, signers, [])
    for signer in made.enough(Root.type, root):
        signed.sign(signer, append=True)
    made.add_root(signed.to_bytes())
    if folder.exists():
        folder.rmdir()
    os.replace(partial, folder)
    return Keys.open(folder)


def check_role(role: str) -> str:
    """Hand a role back.

    Raises:
        PublishingError: it is none.

    """
    if role not in ROLES:
        raise PublishingError(f"{role!r} is no role; expected one of {', '.join(ROLES)}.")
    return role


def pairs(said: list[str] | None, flag: str) -> dict[str, str]:
    """`ROLE=VALUE` as a flag takes it, several times.

    Raises:
        PublishingError: one of them is something else.

    """
    found = {}
    for each in said or []:
        if not (match := re.fullmatch(r"(\w+)=(.+)", each)):
            raise PublishingError(
                f"{flag} {each} is no pair; expected ROLE=VALUE, e.g. root=file2:/media/stick/root.pem."
            )
        found[check_role(match[1])] = match[2]
    return found


def is_open_to_others(uri: str) -> bool:
    """Whether a key file can be read by anyone but its owner."""
    path = Path(uri.removeprefix(FILE))
    return uri.startswith(FILE) and path.exists() and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))

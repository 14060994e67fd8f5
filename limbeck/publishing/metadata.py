"""The signed metadata of a place, edited with python-tuf's `Repository`.

Whatever is read here was lying where others can write: it is held against the root's keys and against the newest
version that this publisher has seen, before anything that it says is signed again. Expired metadata are read all the
same, since renewing them is one of the edits.
"""

import json
from copy import deepcopy
from typing import Any, TypeVar

from securesystemslib.signer import Signer
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.repository import Repository

from limbeck.errors import PublishingError
from limbeck.publishing.keys import Keys, lifetime, now
from limbeck.publishing.places import Place

T = TypeVar("T", bound=Signed)
TIMESTAMP = f"{Timestamp.type}.json"
WRONG = (RepositoryError, DeserializationError, DownloadError, ValueError, KeyError)


class SignedMetadata(Repository):
    """The metadata at a place, as one turn finds them.

    A root that is known here and not yet there (a key was rotated) comes into force with `take_over_roots`; until then
    metadata are signed so that they hold under the old root and the new one.

    Args:
        place: where they lie.
        keys: who may sign.

    Raises:
        PublishingError: the metadata there are not signed by these keys, or older than what was there before.

    """

    def __init__(self, place: Place, keys: Keys) -> None:
        self.place, self.keys = place, keys
        self.num_roots = self._meet_roots()
        self._metadata: dict[str, Metadata[Any]] = {}
        self._content: dict[str, bytes] = {}
        self._number: int | None = None
        if self.num_roots:
            self._read()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever published here."""
        return Timestamp.type not in self._metadata

    @property
    def version(self) -> int:
        """The version of what is visible at the place; 0 when nothing is."""
        return 0 if self.is_empty else int(self._metadata[Timestamp.type].signed.version)

    def _own_number(self) -> int:
        """The version that everything signed in this edit gets: above whatever any place has seen.

        Snapshot and timestamp always have the same one, so that a torn timestamp can be told from its snapshot.
        """
        if self._number is None:
            self._number = max(self.version, self.keys.highest()) + 1
        return self._number

    def _meet_roots(self) -> int:
        """Take up roots that another publisher made; how many the place has."""
        names = set(self.place.names())
        number = 0
        while f"{number + 1}.root.json" in names:
            number += 1
            content = self.place.read(f"{number}.root.json") or b""
            if number > len(self.keys.roots):
                self.keys.add_root(content)
            elif content != self.keys.root_bytes(number):
                raise PublishingError(
                    f"root version {number} at {self.place.name} is another one than in {self.keys.folder}. If another "
                    f"publisher rotated a key meanwhile, remove {number}.root.json and later ones from that folder and "
                    "repeat; else the place belongs to other keys: choose another server or folder."
                )
        return number

    @property
    def _roots(self) -> list[Root]:
        """The root in force here and the newest one, the latter last."""
        there = self.keys.roots[max(self.num_roots, 1) - 1].signed
        return [self.keys.root] if there is self.keys.root else [there, self.keys.root]

    def _read(self) -> None:
        content = self.place.read(TIMESTAMP)
        if content is None:
            return  # the very first publication was cut off
        try:
            timestamp = self._verified(Timestamp.type, content)
        except PublishingError as error:
            timestamp = self._mended(error)
        self._metadata[Timestamp.type] = timestamp
        meta: dict[str, MetaFile] = {Snapshot.type: timestamp.signed.snapshot_meta}
        for role in (Snapshot.type, Targets.type):
            self._metadata[role] = self._listed(role, meta[role])
            if role == Snapshot.type:
                meta[Targets.type] = self._metadata[role].signed.meta[f"{Targets.type}.json"]
        self._refuse_older(timestamp.signed.version)

    def _refuse_older(self, version: int) -> None:
        if version < (seen := self.keys.seen(self.place.name)):
            raise PublishingError(
                f"{self.place.name} has metadata version {version}, version {seen} was there before: it was put back "
                "to an older state, which nobody may sign as the newest. If you restored it yourself, remove its line "
                f"from {self.keys.folder}/versions.json and repeat."
            )

    def _listed(self, role: str, meta: MetaFile) -> Metadata[Any]:
        """A file that the one above it names, held against that."""
        name = f"{meta.version}.{role}.json"
        content = self.place.read(name)
        try:
            if content is None:
                raise ValueError("it is missing")
            meta.verify_length_and_hashes(content)
            found = self._verified(role, content, meta.version)
        except WRONG as error:
            raise PublishingError(
                f"{name} at {self.place.name} is not the file that was published ({error}). Restore it from a backup; "
                "devices refuse it, too."
            ) from None
        self._content[role] = content
        return found

    def _verified(self, role: str, content: bytes, version: int | None = None) -> Metadata[Any]:
        """Parse metadata and hold them against the keys of the root in force there, or of the newest one."""
        reasons = []
        try:
            found: Metadata[Any] = Metadata.from_bytes(content)
            if found.signed.type != role:
                raise ValueError(f"it is {found.signed.type} metadata")
            if version not in (None, found.signed.version):
                raise ValueError(f"it says version {found.signed.version}")
        except WRONG as error:
            raise PublishingError(f"{role} metadata at {self.place.name} are damaged: {error}.") from None
        for root in self._roots:
            try:
                root.verify_delegate(role, found.signed_bytes, found.signatures)
            except RepositoryError as error:
                reasons.append(str(error))
            else:
                return found
        raise PublishingError(
            f"{role} metadata at {self.place.name} are not signed by the keys in {self.keys.folder} "
            f"({'; '.join(reasons)}). Do not publish there: someone else wrote them."
        )

    def _mended(self, error: PublishingError) -> Metadata[Any]:
        """A timestamp over the newest whole snapshot: an upload that was cut short tore the one that was there.

        Raises:
            PublishingError: it is not torn but signed by someone else, or no snapshot is whole.

        """
        try:
            json.loads(self.place.read(TIMESTAMP) or b"")
        except ValueError:
            numbers = [name.split(".")[0] for name in self.place.names() if name.endswith(f".{Snapshot.type}.json")]
            for number in sorted(map(int, filter(str.isdigit, numbers)), reverse=True):
                content = self.place.read(f"{number}.{Snapshot.type}.json") or b""
                try:
                    snapshot = self._verified(Snapshot.type, content, number)
                    self._listed(Targets.type, snapshot.signed.meta[f"{Targets.type}.json"])
                except PublishingError:
                    continue
                return Metadata(
                    Timestamp(version=number, snapshot_meta=MetaFile.from_data(number, content, ["sha256"]))
                )
        raise error

    def open(self, role: str) -> Metadata[Any]:
        """A role's metadata; new ones where the place is empty. (python-tuf calls this.)"""
        if role == Root.type:
            return self.keys.roots[-1]
        if role not in self._metadata:
            kinds = {Targets.type: Targets, Snapshot.type: Snapshot, Timestamp.type: Timestamp}
            empty: Signed = kinds[role]()
            empty.version = 0
            if isinstance(empty, Snapshot):
                empty.meta = {}
            if isinstance(empty, Timestamp):
                empty.snapshot_meta = MetaFile(1)
                empty.snapshot_meta.version = 0
            return Metadata(empty)
        return deepcopy(self._metadata[role])

    def close(self, role: str, md: Metadata[Any]) -> None:
        """Sign changed metadata and write them. (python-tuf calls this.)"""
        number = self._own_number()
        md.signed.version, md.signed.expires = number, now() + lifetime(self.keys.root, role)
        md.signatures.clear()
        for signer in self.signers(role):
            md.sign(signer, append=True)
        content = md.to_bytes()
        self.place.write(TIMESTAMP if role == Timestamp.type else f"{number}.{role}.json", content)
        self._metadata[role], self._content[role] = md, content

    def signers(self, role: str) -> list[Signer]:
        """Who signs a role: as many as the newest root asks for, and who is here of the keys of the one in force."""
        *old, newest = self._roots
        found = self.keys.enough(role, newest) + [s for root in old for s in self.keys.available(role, root)]
        return list({signer.public_key.keyid: signer for signer in found}.values())

    @property
    def targets_infos(self) -> dict[str, MetaFile]:
        """What a snapshot says of the targets. (python-tuf asks for it.)"""
        return {f"{Targets.type}.json": self._meta(Targets.type)}

    @property
    def snapshot_info(self) -> MetaFile:
        """What a timestamp says of the snapshot. (python-tuf asks for it.)"""
        return self._meta(Snapshot.type)

    def _meta(self, role: str) -> MetaFile:
        """Version, length and hash of a metadata file: the length is what a device downloads at most."""
        return MetaFile.from_data(self._metadata[role].signed.version, self._content[role], ["sha256"])

    def is_pending(self, role: str) -> bool:
        """Whether a key of a role was rotated here and the root that says so is not in force there."""
        return self.num_roots > 0 and self._roots[0].roles[role] != self.keys.root.roles[role]

    def take_over_roots(self) -> None:
        """Bring roots that the place does not have into force there.

        First everything that the newest root's keys have not signed is signed by old and new keys, then the roots are
        written: a device that has seen either one finds metadata that hold.
        """
        if self.num_roots == len(self.keys.roots):
            return
        if not self.is_empty:
            targets = self._metadata[Targets.type]
            if not self.keys.root.get_verification_result(Targets.type, targets.signed_bytes, targets.signatures):
                with self.edit_targets():
                    pass
            self.make_visible(renewed=True)
            self._number = None
        for number in range(self.num_roots + 1, len(self.keys.roots) + 1):
            self.place.write(f"{number}.root.json", self.keys.root_bytes(number))
        self.num_roots = len(self.keys.roots)

    def make_visible(self, *, renewed: bool = False) -> None:
        """Write snapshot and timestamp over changed targets; `renewed`: newer ones over the same.

        Until the timestamp is written no device sees anything of the edit.
        """
        self.do_snapshot(force=renewed)
        self.do_timestamp(force=renewed)
        self.keys.saw(self.place.name, self._metadata[Timestamp.type].signed.version)

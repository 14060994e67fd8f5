import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import ExpiredMetadataError
from tuf.api.metadata import Metadata

from limbeck import ledger
from limbeck.edge.manifest import sha256
from limbeck.errors import PublishingError
from limbeck.publishing import keys as keys_file
from limbeck.publishing import metadata
from limbeck.publishing.keys import Keys, NewKey
from limbeck.publishing.places import Folder
from limbeck.publishing.serving import Publisher
from tests.publishing.conftest import OTHER, Device, FromFolder, Shelf
from tests.tracking.conftest import MODEL


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def served(file: Path) -> list[tuple[str, str | None, str]]:
    return [(e.alias, e.previous, e.version) for e in ledger.read(file) if e.alias.startswith("served")]


class Killed(BaseException):
    """What a kill is to the code that it hits."""


class Fragile(Folder):
    """A folder whose publisher dies at the n-th write, before or after it; `seen` is called after every write."""

    def __init__(self, path: Path, dies_at: float = 1e9, seen: Callable[[], None] = lambda: None) -> None:
        super().__init__(path)
        self.left, self.seen = dies_at, seen

    def write(self, name: str, content: bytes) -> None:
        self._count()
        super().write(name, content)
        self.seen()
        self._count()

    def put(self, artifacts: str, name: str, content: bytes) -> None:
        self._count()
        super().put(artifacts, name, content)

    def _count(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Killed


def test_a_published_version_is_what_a_device_finds_verified_down_to_every_file(
    publisher: Publisher, place: Folder, device: Device, shelf: Shelf, workspace: Path
) -> None:
    assert publisher.publish(MODEL) == 3
    found = device.sees()
    assert found["serial"] == 3
    bundle = place.path / "artifacts" / found["artifacts"]
    manifest = bundle / "manifest.json"
    assert (manifest.stat().st_size, sha256(manifest)) == (found["length"], found["hashes"]["sha256"])
    told = json.loads(manifest.read_text())["files"]
    assert {path.name for path in bundle.iterdir()} == {"manifest.json", *told}
    for name, expected in told.items():
        assert (bundle / name).stat().st_size == expected["bytes"]
        assert sha256(bundle / name) == expected["sha256"]
    assert shelf.aliases[MODEL, "champion"] == "3"
    assert served(workspace / "ledger.jsonl") == [("served as champion", None, "3")]


def test_publishing_again_signs_nothing(publisher: Publisher, place: Folder, workspace: Path, lines: list[str]) -> None:
    publisher.publish(MODEL)
    before = files(place.path)
    publisher.publish(MODEL)
    assert files(place.path) == before
    assert len(served(workspace / "ledger.jsonl")) == 1
    assert lines[-1] == f"{MODEL} version 3 was champion at {place.name}"


def test_a_place_knows_every_bundle_of_a_model_by_what_devices_call_it(
    publisher: Publisher, place: Folder, shelf: Shelf, tmp_path: Path
) -> None:
    for serial in (1, 2):
        publisher.publish(MODEL, serial=serial)
    publisher.publish(OTHER)
    assert place.kept(MODEL) == {shelf.make_bundle(MODEL, serial, tmp_path)[:16] for serial in (1, 2)}
    assert place.kept("never-published") == set()


def test_rolling_back_is_an_older_file_under_newer_metadata(
    publisher: Publisher, place: Folder, device: Device, shelf: Shelf, workspace: Path, lines: list[str]
) -> None:
    publisher.publish(MODEL, serial=1)
    publisher.publish(MODEL, serial=2)
    assert device.sees()["serial"] == 2
    assert publisher.roll_back(MODEL) == 1
    assert device.sees()["serial"] == 1
    assert device.versions == sorted(set(device.versions))
    assert shelf.aliases[MODEL, "champion"] == "1"
    before = files(place.path)
    assert publisher.roll_back(MODEL) == 1, "the same command again goes no further back"
    assert files(place.path) == before
    assert "was rolled back from version 2 to 1; to go further back name one: --to SERIAL" in lines[-2]
    publisher.publish(MODEL, serial=3)
    assert publisher.roll_back(MODEL) == 1, "what served before is what one goes back to"
    assert publisher.roll_back(MODEL, to=2) == 2
    assert device.sees()["serial"] == 2
    versions = [version for _, _, version in served(workspace / "ledger.jsonl")]
    assert versions == ["1", "2", "1", "3", "1", "2"]
    with pytest.raises(PublishingError, match=r"cannot go back to version 9: served before were 1, 3"):
        publisher.roll_back(MODEL, to=9)


def test_what_never_served_cannot_be_gone_back_to(publisher: Publisher) -> None:
    with pytest.raises(PublishingError, match=r"is not published at .*; `limbeck publish digits-phone` does it"):
        publisher.roll_back(MODEL)
    publisher.publish(MODEL)
    with pytest.raises(PublishingError, match=r"cannot go back: served before were none"):
        publisher.roll_back(MODEL)


def test_a_canary_is_widened_with_the_same_salt_and_ends_as_champion_or_is_withdrawn(
    publisher: Publisher, device: Device, shelf: Shelf, workspace: Path
) -> None:
    publisher.publish(MODEL, serial=1)
    publisher.publish(MODEL, "canary", serial=2, share=0.1)
    first = device.sees("canary")
    assert (first["serial"], first["share_ppm"], len(first["salt"])) == (2, 100_000, 16)
    assert device.sees()["serial"] == 1
    publisher.publish(MODEL, "canary", serial=2, share=0.5)
    wider = device.sees("canary")
    assert (wider["share_ppm"], wider["salt"]) == (500_000, first["salt"])
    assert shelf.aliases[MODEL, "canary"] == "2"
    publisher.publish(MODEL, serial=2)
    assert (device.sees("canary"), device.sees()["serial"]) == ({}, 2)
    assert (MODEL, "canary") not in shelf.aliases
    publisher.publish(MODEL, "canary", serial=3, share=0.1)
    assert device.sees("canary")["salt"] != first["salt"]
    publisher.withdraw(MODEL)
    assert device.sees("canary") == {}
    assert served(workspace / "ledger.jsonl")[-2:] == [
        ("served as canary", "none", "3"),
        ("served as canary", "3", "none"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alias": "canary"}, r"a canary needs the share of the fleet .*--share 0.1"),
        ({"alias": "canary", "share": 1.5}, r"--share 1.5 is for a canary, above 0 and up to 1"),
        ({"share": 0.5}, r"--share 0.5 is for a canary"),
        ({"alias": "beta"}, r"nothing is served as 'beta'; expected champion or canary"),
        ({"model": "../x"}, r"'../x' cannot be published; expected letters"),
    ],
)
def test_what_cannot_be_published_is_said_before_anything_is_fetched(
    publisher: Publisher, place: Folder, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PublishingError, match=message):
        publisher.publish(**{"model": MODEL, "serial": 1, **arguments})
    assert files(place.path) == {}


def test_the_online_keys_alone_renew_and_cannot_publish(publisher: Publisher, keys: Keys, device: Device) -> None:
    publisher.publish(MODEL)
    device.sees()
    for role in ("root", "targets"):
        (keys.folder / f"{role}.pem").unlink()
    publisher.renew()
    assert device.sees()["serial"] == 3
    assert device.versions == [1, 2]
    with pytest.raises(
        PublishingError, match=r"targets needs 1 signature\(s\), 0 of its keys can sign here: .* is missing"
    ):
        publisher.publish(MODEL, serial=1)
    with pytest.raises(PublishingError, match=r"targets needs 1 signature"):
        publisher.renew(everything=True)
    assert device.sees()["serial"] == 3


def test_expired_metadata_are_refused_by_a_device_and_renewed(
    publisher: Publisher, device: Device, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PublishingError, match=r"nothing is published at .*; `limbeck publish NAME` does it"):
        publisher.renew()
    with monkeypatch.context() as past:
        past.setattr(metadata, "now", lambda: keys_file.now() - timedelta(days=359, hours=23))
        publisher.publish(MODEL)
    with pytest.raises(ExpiredMetadataError, match=r"timestamp.json is expired"):
        device.sees()
    publisher.renew()
    assert device.sees()["serial"] == 3
    assert "targets metadata expire in 5 days; `limbeck renew --all`" in lines[-1]
    publisher.renew(everything=True)
    assert not [line for line in lines[-1:] if "expire in" in line]
    assert device.sees()["serial"] == 3


def fresh_device(workspace: Path, place: Folder, keys: Keys, name: str) -> Device:
    return Device(workspace / name, keys.root_bytes(1), FromFolder(place.path))


STEPS: list[Callable[[Publisher], Any]] = [
    lambda publisher: publisher.publish(MODEL, serial=1),
    lambda publisher: publisher.publish(MODEL, "canary", serial=2, share=0.5),
    lambda publisher: publisher.publish(MODEL, serial=2),
    lambda publisher: publisher.roll_back(MODEL),
]


def live(folder: Path, keys: Path, *, deadly: bool) -> tuple[Any, int]:
    """A life of a model, in a deadly world with a kill at every write; what counts in the end, and how many kills."""
    shelf, place, ledger_file = Shelf(), Folder(folder / "published"), folder / "ledger.jsonl"
    shutil.copytree(keys, folder / "keys")
    kills = 0
    for step in STEPS:
        for dies_at in range(1, 100):
            fragile = Fragile(place.path, dies_at if deadly else 1e9)
            opened = Keys.open(folder / "keys")
            try:
                step(Publisher(opened, fragile, registry=shelf, ledger_file=ledger_file))
            except Killed:
                kills += 1
                if place.read("timestamp.json"):
                    assert fresh_device(folder, place, opened, f"device-{kills}").sees()["serial"] in (1, 2)
            else:
                break
    last = fresh_device(folder, place, opened, "last")
    seen = {alias: {**last.sees(alias), "salt": None} for alias in ("champion", "canary")}
    told = [(e.model, e.alias, e.previous, e.version) for e in ledger.read(ledger_file)]
    return (seen, told, shelf.aliases, files(folder / "published/artifacts")), kills


def test_a_kill_anywhere_and_the_same_command_again_end_in_the_same_state(made_keys: Path, tmp_path: Path) -> None:
    expected, _ = live(tmp_path / "peace", made_keys, deadly=False)
    found, kills = live(tmp_path / "war", made_keys, deadly=True)
    assert kills > 20
    assert found == expected


def test_a_torn_timestamp_is_mended_and_devices_go_on(publisher: Publisher, place: Folder, device: Device) -> None:
    publisher.publish(MODEL, serial=1)
    publisher.publish(MODEL, serial=2)
    device.sees()
    whole = place.read("timestamp.json") or b""
    place.write("timestamp.json", whole[: len(whole) // 2])
    publisher.renew()
    assert device.sees()["serial"] == 2
    assert device.versions == [2, 3]


def test_metadata_that_someone_else_wrote_are_never_signed(
    publisher: Publisher, place: Folder, keys: Keys, tmp_path: Path, shelf: Shelf
) -> None:
    publisher.publish(MODEL, serial=1)
    old = {name: place.read(name) or b"" for name in place.names()}
    publisher.publish(MODEL, serial=2)
    for name in ("timestamp.json", "1.snapshot.json", "1.targets.json"):
        place.write(name, old[name])
    with pytest.raises(PublishingError, match=r"has metadata version 1, version 2 was there before: it was put back"):
        publisher.publish(MODEL, serial=3)
    shutil.rmtree(place.path)
    stranger = Publisher(
        keys_file.init(tmp_path / "stranger"), place, registry=shelf, ledger_file=tmp_path / "ledger.jsonl"
    )
    stranger.publish(MODEL, serial=1)
    with pytest.raises(PublishingError, match=r"root version 1 at .* is another one than in .*keys"):
        publisher.renew()
    place.write("1.root.json", keys.root_bytes(1))
    with pytest.raises(
        PublishingError, match=r"timestamp metadata at .* are not signed by the keys in .*Do not publish"
    ):
        publisher.renew()


def test_a_changed_targets_file_is_refused(publisher: Publisher, place: Folder) -> None:
    publisher.publish(MODEL, serial=1)
    changed = (place.read("1.targets.json") or b"").replace(MODEL.encode(), b"digits-other")
    place.write("1.targets.json", changed)
    with pytest.raises(PublishingError, match=r"1.targets.json at .* is not the file that was published"):
        publisher.publish(MODEL, serial=2)


def test_two_publishers_at_once_do_not_lose_each_others_change(
    publisher: Publisher, place: Folder, device: Device, workspace: Path, shelf: Shelf
) -> None:
    entered = threading.Event()

    class Slow(Folder):
        @contextmanager
        def turn(self) -> Iterator[None]:
            with super().turn():
                entered.set()
                yield

        def write(self, name: str, content: bytes) -> None:
            other.join(0.2)  # it would be through by now if nothing held it up
            super().write(name, content)

    def publish_other() -> None:
        entered.wait()
        Publisher(Keys.open(workspace / "keys"), place, registry=shelf, ledger_file=workspace / "ledger.jsonl").publish(
            OTHER
        )

    other = threading.Thread(target=publish_other)
    other.start()
    slow = Publisher(publisher.keys, Slow(place.path), registry=shelf, ledger_file=workspace / "ledger.jsonl")
    slow.publish(MODEL)
    other.join()
    assert device.sees()["serial"] == 3
    assert device.sees(model=OTHER)["serial"] == 1


@pytest.mark.parametrize("role", keys_file.ROLES)
def test_a_rotated_key_reaches_devices_and_none_of_them_ever_finds_metadata_that_do_not_hold(
    publisher: Publisher, place: Folder, keys: Keys, workspace: Path, shelf: Shelf, role: str
) -> None:
    publisher.publish(MODEL)
    old = fresh_device(workspace, place, keys, "old")
    old.sees()
    news: list[int] = []

    def look() -> None:
        news.append(old.sees()["serial"])
        news.append(fresh_device(workspace, place, keys, f"new-{len(news)}").sees()["serial"])

    before = set(keys.root.roles[role].keyids)
    for dies_at in range(1, 100):
        mine = Keys.open(keys.folder)
        fragile = Fragile(place.path, dies_at, look)
        try:
            Publisher(mine, fragile, registry=shelf, ledger_file=workspace / "l.jsonl").rotate(role, NewKey())
        except Killed:
            if place.read("2.root.json"):
                break  # it is in force: the command again would be another rotation
        else:
            break
    assert news
    assert set(news) == {3}
    assert len(Keys.open(keys.folder).roots) == 2, "a rotation that was cut off is finished, not begun anew"
    (root,) = [Metadata.from_bytes(place.read("2.root.json") or b"")]
    assert before.isdisjoint(root.signed.roles[role].keyids)
    (keys.folder / f"{role}.pem").unlink()
    again = Publisher(Keys.open(keys.folder), place, registry=shelf, ledger_file=workspace / "l.jsonl")
    again.publish(MODEL, serial=1)
    assert old.sees()["serial"] == 1
    last = json.loads(place.read("timestamp.json") or b"")["signatures"]
    assert len(last) == 1


def test_a_lost_key_is_replaced_by_root(
    publisher: Publisher, place: Folder, keys: Keys, device: Device, workspace: Path
) -> None:
    publisher.publish(MODEL)
    device.sees()
    for role in ("timestamp", "targets"):
        (keys.folder / f"{role}.pem").unlink()
        publisher.rotate(role, NewKey())
    publisher.publish(MODEL, serial=1)
    assert device.sees()["serial"] == 1


def test_another_publisher_with_a_copy_of_the_keys_takes_up_a_rotation(
    publisher: Publisher, place: Folder, keys: Keys, device: Device, workspace: Path, shelf: Shelf
) -> None:
    publisher.publish(MODEL, serial=1)
    shutil.copytree(keys.folder, workspace / "copy")
    publisher.rotate("timestamp", NewKey())
    other = Publisher(Keys.open(workspace / "copy"), place, registry=shelf, ledger_file=workspace / "l.jsonl")
    with pytest.raises(PublishingError, match=r"timestamp needs 1 signature\(s\), 0 .* \(nothing says where it is\)"):
        other.publish(MODEL, serial=2)
    shutil.copy(keys.folder / "timestamp-2.pem", workspace / "copy")
    shutil.copy(keys.folder / "signers.json", workspace / "copy")
    other = Publisher(Keys.open(workspace / "copy"), place, registry=shelf, ledger_file=workspace / "l.jsonl")
    other.publish(MODEL, serial=2)
    assert device.sees()["serial"] == 2


def test_a_stick_carries_the_same_metadata_and_one_models_files(
    publisher: Publisher, place: Folder, keys: Keys, workspace: Path
) -> None:
    publisher.publish(OTHER)
    publisher.publish(MODEL)
    stick = Folder(workspace / "stick")
    publisher.copy_to(stick, MODEL)
    found = fresh_device(workspace, stick, keys, "offline").sees()
    assert found["serial"] == 3
    manifest = json.loads(stick.fetch(found["artifacts"], "manifest.json"))
    assert all(stick.fetch(found["artifacts"], name) for name in manifest["files"])
    assert [path.name for path in (stick.path / "artifacts").iterdir()] == [MODEL]
    assert stick.read("timestamp.json") == place.read("timestamp.json")
    (place.path / "artifacts" / found["artifacts"] / "golden.npz").write_bytes(b"other")
    with pytest.raises(PublishingError, match=r"golden.npz .* is not the file that was signed"):
        publisher.copy_to(Folder(workspace / "second"), MODEL)
    with pytest.raises(PublishingError, match=r"digits-none is not published at"):
        publisher.copy_to(stick, "digits-none")


def test_a_bundle_that_the_place_has_lost_is_uploaded_again_and_never_signed_without_its_files(
    publisher: Publisher, place: Folder, device: Device
) -> None:
    publisher.publish(MODEL, serial=1)
    lost = place.path / "artifacts" / device.sees()["artifacts"]
    publisher.publish(MODEL, serial=2)
    (lost / "golden.npz").unlink()
    with pytest.raises(
        PublishingError, match=r"bundle of version 1 is no longer whole .*publish digits-phone --serial 1"
    ):
        publisher.roll_back(MODEL)
    assert device.sees()["serial"] == 2
    publisher.publish(MODEL, serial=1)
    assert (lost / "golden.npz").exists()
    assert device.sees()["serial"] == 1


def test_a_device_starts_from_the_root_and_an_address(publisher: Publisher, keys: Keys, workspace: Path) -> None:
    with pytest.raises(PublishingError, match=r"is not published at .*; a device would find nothing"):
        publisher.provision(MODEL, workspace / "device")
    publisher.publish(MODEL)
    publisher.provision(MODEL, workspace / "device", server="http://10.0.0.1:5000")
    assert (workspace / "device/root.json").read_bytes() == keys.root_bytes(1)
    told = json.loads((workspace / "device/device.json").read_text())
    assert told == {"server": "http://10.0.0.1:5000", "metadata": "metadata", "model": MODEL}
    with pytest.raises(PublishingError, match=r"is a folder, into which no device reports; leave --reports out"):
        publisher.provision(MODEL, workspace / "device", reports=True)

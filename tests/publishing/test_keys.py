import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from limbeck.errors import PublishingError
from limbeck.publishing import keys as keys_file
from limbeck.publishing.keys import Keys, NewKey


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_role_gets_a_key_that_its_owner_alone_can_read_and_git_never_sees(tmp_path: Path) -> None:
    keys = keys_file.init(tmp_path / "keys")
    private = {path.name for path in keys.folder.glob("*.pem")}
    assert private == {f"{role}.pem" for role in keys_file.ROLES}
    assert {mode(keys.folder / name) for name in private} == {0o600}
    assert mode(keys.folder) == 0o700
    assert len({row.keyid for row in keys.rows()}) == 4
    assert all(row.can_sign for row in keys.rows())
    secrets = [(keys.folder / name).read_text().splitlines()[1] for name in private]
    told = "".join(path.read_text() for path in keys.folder.glob("*.json"))
    assert not any(secret in told for secret in secrets)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    status = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""


def test_keys_are_never_overwritten(keys: Keys) -> None:
    before = {path.name: path.read_bytes() for path in keys.folder.iterdir()}
    with pytest.raises(PublishingError, match=r"exists, and keys are never overwritten.*limbeck keys rotate ROLE"):
        keys_file.init(keys.folder)
    assert {path.name: path.read_bytes() for path in keys.folder.iterdir()} == before


def test_a_killed_init_leaves_no_folder_that_looks_whole(tmp_path: Path) -> None:
    (tmp_path / "keys.partial").mkdir()
    (tmp_path / "keys.partial/root.pem").write_text("torn")
    with pytest.raises(PublishingError, match=r"no signing keys in .*; make them with `limbeck keys init`"):
        Keys.open(tmp_path / "keys")
    assert all(row.can_sign for row in keys_file.init(tmp_path / "keys").rows())


def test_a_key_elsewhere_is_made_there_or_used_and_found_again_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file2:{tmp_path}/stick/root.pem"
    keys = keys_file.init(tmp_path / "a", uris={"root": uri})
    assert not (tmp_path / "a/root.pem").exists()
    assert mode(tmp_path / "stick/root.pem") == 0o600
    other = keys_file.init(tmp_path / "b", uris={"root": uri})
    assert other.root.roles["root"].keyids == keys.root.roles["root"].keyids
    (tmp_path / "stick").rename(tmp_path / "elsewhere")
    expected = r"root needs 1 signature\(s\), 0 of its keys can sign here: .* is missing.*LIMBECK_KEY_ROOT=URI"
    with pytest.raises(PublishingError, match=expected):
        keys.enough("root")
    monkeypatch.setenv("LIMBECK_KEY_ROOT", f"file2:{tmp_path}/elsewhere/root.pem")
    assert len(keys.enough("root")) == 1
    monkeypatch.setenv("LIMBECK_KEY_ROOT", f"file2:{tmp_path}/a/targets.pem")
    with pytest.raises(PublishingError, match=r"private key does not match public key"):
        keys.enough("root")


def test_a_key_of_a_service_needs_its_public_key_and_a_scheme_that_exists(tmp_path: Path) -> None:
    with pytest.raises(PublishingError, match=r"public key of awskms:alias is missing; .*--public ROLE=FILE"):
        keys_file.init(tmp_path / "keys", uris={"targets": "awskms:alias"})
    with pytest.raises(PublishingError, match=r"expected a URI that begins with one of awskms:, .*file2:"):
        keys_file.init(tmp_path / "keys", uris={"targets": "root.pem"})
    with pytest.raises(
        PublishingError, match=r"'tagrets' is no role; expected one of root, targets, snapshot, timestamp"
    ):
        keys_file.init(tmp_path / "keys", uris={"tagrets": "file2:x.pem"})
    (tmp_path / "public.pem").write_text("none")
    with pytest.raises(PublishingError, match=r"public.pem is no PEM key without a password"):
        keys_file.init(tmp_path / "keys", uris={"targets": "awskms:alias"}, public={"targets": tmp_path / "public.pem"})
    assert not (tmp_path / "keys").exists()


def test_a_new_key_comes_with_a_root_that_the_old_key_signed(keys: Keys) -> None:
    old = keys.root.roles["targets"].keyids
    keys.next_root("targets", NewKey())
    assert keys.root.version == 2
    assert keys.root.roles["targets"].keyids != old
    assert mode(keys.folder / "targets-2.pem") == 0o600
    assert Keys.open(keys.folder).root.version == 2
    keys.next_root("root", NewKey())
    signed: Metadata = keys.roots[-1]
    assert set(signed.signatures) == {*keys.roots[1].signed.roles["root"].keyids, *keys.root.roles["root"].keyids}


def test_a_threshold_needs_as_many_keys_and_then_as_many_signatures(keys: Keys) -> None:
    with pytest.raises(PublishingError, match=r"targets would have 1 key\(s\) and need 2; choose --threshold"):
        keys.next_root("targets", NewKey(threshold=2))
    assert keys.root.version == 1
    keys.next_root("targets", NewKey(add=True, threshold=2))
    assert len(keys.enough("targets")) == 2
    (keys.folder / "targets.pem").unlink()
    with pytest.raises(PublishingError, match=r"targets needs 2 signature\(s\), 1 of its keys can sign here"):
        keys.enough("targets")


def test_without_roots_key_no_role_gets_a_new_one(keys: Keys) -> None:
    (keys.folder / "root.pem").unlink()
    with pytest.raises(PublishingError, match=r"root needs 1 signature\(s\), 0 of its keys can sign here"):
        keys.next_root("timestamp", NewKey())
    assert not (keys.folder / "timestamp-2.pem").exists()


def test_a_root_that_the_one_before_did_not_sign_is_refused(keys: Keys, tmp_path: Path) -> None:
    stranger = keys_file.init(tmp_path / "stranger")
    stranger.next_root("targets", NewKey())
    with pytest.raises(PublishingError, match=r"root version 2 is not signed by the keys of the one before"):
        keys.add_root(stranger.root_bytes(2))
    shutil.copy(stranger.folder / "2.root.json", keys.folder)
    with pytest.raises(PublishingError, match=r"root version 2 is not signed by the keys of the one before"):
        Keys.open(keys.folder)


def test_a_damaged_folder_says_so(keys: Keys) -> None:
    (keys.folder / "signers.json").write_text(json.dumps({})[:1])
    with pytest.raises(PublishingError, match=r"is damaged .*; restore it from your copy"):
        Keys.open(keys.folder)
    (keys.folder / "signers.json").unlink()
    with pytest.raises(PublishingError, match=r"signers.json is missing; restore"):
        Keys.open(keys.folder)


def test_a_flag_names_a_role_and_a_value() -> None:
    assert keys_file.pairs(["root=file2:/a=b.pem"], "--at") == {"root": "file2:/a=b.pem"}
    with pytest.raises(PublishingError, match=r"--at root is no pair; expected ROLE=VALUE"):
        keys_file.pairs(["root"], "--at")

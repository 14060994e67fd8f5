import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import graph, workspace
from limbeck.errors import LimbeckError, ParamsError
from tests.flows.conftest import ROOT

TINY = ROOT / "tests" / "tiny.yaml"


def test_a_folder_anywhere_becomes_a_workspace(tmp_path: Path) -> None:
    folder = workspace.create(tmp_path / "here", TINY)
    assert (folder / "params.yaml").read_bytes() == TINY.read_bytes()
    assert (folder / "stages").resolve() == ROOT / "stages"
    assert f"dir = {ROOT / '.dvc/cache'}" in (folder / ".dvc/config").read_text()
    assert any(stage.name == "prepare" for stage in graph.load(folder))


def test_a_named_workspace_moves_with_the_project() -> None:
    folder = workspace.create("test-of-workspaces", TINY)
    try:
        assert folder == ROOT / "work" / "test-of-workspaces"
        assert (folder / "limbeck").readlink() == Path("../../limbeck")
        assert "dir = ../../../.dvc/cache" in (folder / ".dvc/config").read_text()
    finally:
        shutil.rmtree(folder)


def test_its_own_cache_on_request(tmp_path: Path) -> None:
    assert "dir = cache\n" in (workspace.create(tmp_path, TINY, own_cache=True) / ".dvc/config").read_text()


def test_a_new_recipe_replaces_an_untouched_params_file_and_spares_an_edited_one(tmp_path: Path) -> None:
    source = tmp_path / "recipe.yaml"
    source.write_text("seed: 1\n")
    folder = workspace.create(tmp_path / "work", source)
    source.write_text("seed: 2\n")
    workspace.create(folder, source)
    assert (folder / "params.yaml").read_text() == "seed: 2\n"
    (folder / "params.yaml").write_text("seed: 7\n")
    source.write_text("seed: 3\n")
    workspace.create(folder, source)
    assert (folder / "params.yaml").read_text() == "seed: 7\n"
    (folder / "params.yaml").unlink()
    workspace.create(folder, source)
    assert (folder / "params.yaml").read_text() == "seed: 3\n"


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cifar10.yaml").touch()
    with pytest.raises(ParamsError, match="no recipe 'cifar'; did you mean 'cifar10'"):
        workspace.recipe("cifar", tmp_path)


def test_a_folder_in_place_of_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    with pytest.raises(LimbeckError, match="stands where a link .* belongs"):
        workspace.create(tmp_path, TINY)


def test_dvc_hashes_through_the_links(tmp_path: Path) -> None:
    folder = workspace.create(tmp_path, TINY, own_cache=True)
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("1")
    (folder / "linked").symlink_to(code)
    (folder / "dvc.yaml").write_text("stages: {s: {cmd: echo > out.txt, deps: [linked], outs: [out.txt]}}\n")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "repro", "-q"], cwd=folder, check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    assert graph.changed(folder) == {}
    (code / "a.py").write_text("2")
    assert graph.changed(folder) == {"s": ("linked modified",)}

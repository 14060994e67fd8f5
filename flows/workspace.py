"""A folder where the pipeline runs with other values: work/NAME, or any folder that a test or a trial names.

    work/cifar10/
        params.yaml             the recipe's, until the user edits it
        dvc.yaml .dvcignore     copies of the project's, renewed each time
        limbeck stages custom   links into the project (DVC hashes through them as through the folders)
        .dvc/config             no git here; the cache is the project's, so equal work is done once
        data models ... dvc.lock

A recipe that changed replaces params.yaml only while that is still the recipe's last text (kept beside, in
`.limbeck/recipe.yaml`). An edited one stays as it is; delete it to get the recipe's again.
"""

import os
from pathlib import Path

from flows.environment import ROOT
from limbeck.atomic import replace
from limbeck.components import nearest
from limbeck.errors import LimbeckError, ParamsError

LINKS = ("limbeck", "stages", "custom")
COPIES = ("dvc.yaml", ".dvcignore")
TAKEN = Path(".limbeck/recipe.yaml")


def recipe(name: str, recipes: Path = ROOT / "recipes") -> Path:
    """The params file of a recipe.

    Raises:
        ParamsError: there is no such recipe; the message names the nearest.
    """
    path = recipes / f"{name}.yaml"
    if not path.is_file():
        known = [found.stem for found in sorted(recipes.glob("*.yaml"))]
        hint = nearest(name, known) if known else f"{recipes} holds none."
        raise ParamsError(f"no recipe {name!r}; {hint}")
    return path


def locate(name: str | None, folder: Path | None) -> Path:
    """The folder to run in: one given, a recipe's workspace (made or brought up to date), or the project itself.

    Raises:
        ParamsError: there is no such recipe.
    """
    if folder is not None:
        return folder.resolve()
    return create(name, recipe(name)) if name else ROOT


def create(name_or_path: str | Path, params_source: Path, *, own_cache: bool = False, links: bool = False) -> Path:
    """Make a workspace, or bring an old one up to date. Outs and dvc.lock stay.

    Args:
        name_or_path: a name stands for work/NAME in the project; a `Path` is the folder itself.
        params_source: the params.yaml to start from.
        own_cache: keep a DVC cache in the folder instead of sharing the project's.
        links: let outs be links into the cache where the file system has them: many workspaces, one copy.

    Returns:
        The folder.

    Raises:
        ParamsError: `params_source` is missing.
        LimbeckError: something else stands where a link belongs.
    """
    folder = ROOT / "work" / name_or_path if isinstance(name_or_path, str) else name_or_path
    if not params_source.is_file():
        raise ParamsError(f"{params_source} is missing; name a params file to start {folder} from.")
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    _take_params(folder, params_source.read_bytes())
    for name in COPIES:
        _write(folder / name, (ROOT / name).read_bytes())
    for name in LINKS:
        _link(folder / name, ROOT / name)
    cache = "cache" if own_cache else _from(folder / ".dvc", ROOT / ".dvc/cache")
    config = f"[core]\n    analytics = false\n    no_scm = True\n[cache]\n    dir = {cache}\n"
    if links:
        config += "    type = reflink,hardlink,symlink,copy\n"
    _write(folder / ".dvc/config", config.encode())
    return folder


def having(*folders: str) -> list[Path]:
    """The project and the workspaces in work/, where they have one of these folders."""
    places = (ROOT, *sorted(ROOT.glob("work/*")))
    return [place for place in places if any((place / name).is_dir() for name in folders)]


def is_edited(folder: Path) -> bool:
    """Whether a workspace's params.yaml is no longer the recipe's text."""
    taken, params = folder / TAKEN, folder / "params.yaml"
    return params.exists() and (not taken.exists() or taken.read_bytes() != params.read_bytes())


def _take_params(folder: Path, text: bytes) -> None:
    if is_edited(folder):
        return
    _write(folder / "params.yaml", text)
    _write(folder / TAKEN, text)


def _write(path: Path, content: bytes) -> None:
    """Write only what differs: an untouched file keeps its time, and DVC its hash of it."""
    if path.exists() and path.read_bytes() == content:
        return
    with replace(path) as partial:
        partial.write_bytes(content)


def _link(link: Path, aim: Path) -> None:
    if link.is_symlink() and link.resolve() == aim.resolve():
        return
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise LimbeckError(f"{link} stands where a link to {aim} belongs; move it away.")
    link.symlink_to(_from(link.parent, aim), target_is_directory=True)


def _from(folder: Path, aim: Path) -> str:
    """A path that moves with the project inside it, an absolute one outside."""
    return os.path.relpath(aim, folder) if folder.resolve().is_relative_to(ROOT) else str(aim)

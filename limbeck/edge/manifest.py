"""`manifest.json`: which files belong together, their sizes and digests, what they take and give."""

import hashlib
import json
from pathlib import Path, PureWindowsPath
from typing import Any

from limbeck.edge import EdgeError
from limbeck.edge.tokenizer import NAME as TOKENIZER

NAME = "manifest.json"
FORMAT = 1


def sha256(path: Path) -> str:
    """Digest of a file, read in pieces. (`limbeck.atomic` has the pipeline's own: a device has this room alone.)"""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def identity(folder: Path) -> str:
    """The digest that stands for the whole bundle: that of its manifest, which holds every file's.

    Raises:
        EdgeError: the folder has no manifest.

    """
    if not (folder / NAME).is_file():
        raise EdgeError(f"{folder / NAME} is missing; expected the folder of an export.")
    return sha256(folder / NAME)


def write(folder: Path, **described: Any) -> None:
    """Describe every ONNX and golden file of `folder`, and its tokenizer, with the facts given, in a fixed order of keys."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".onnx", ".npz") or path.name == TOKENIZER)
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}
    text = json.dumps({"format": FORMAT, **described, "files": files}, indent=2) + "\n"
    (folder / NAME).write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Read a manifest and hold every file it names against its size and digest.

    Raises:
        EdgeError: the manifest is missing or no manifest, names a place outside its folder, or a file differs.
    """
    path = folder / NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = {
            name: {"bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in found["files"].items()
        }
        known = found["format"] == FORMAT
    except (FileNotFoundError, NotADirectoryError):
        raise EdgeError(f"{path} is missing; expected the folder of an export.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgeError(f"{path} is no manifest: {error!r}. Export again.") from None
    if not known:
        raise EdgeError(f"{path} has format {found['format']}, this agent reads {FORMAT}; update it.")
    for name, expected in files.items():
        # a bundle made on one system is read on another: neither one's separators may lead out
        if Path(name).name != name or PureWindowsPath(name).name != name or name in ("", ".", ".."):
            raise EdgeError(f"{path} names {name!r}, which is outside its folder; the bundle cannot be trusted.")
        file = folder / name
        if not file.is_file():
            raise EdgeError(f"{file} is missing; restore its folder (`dvc checkout`) or fetch it again.")
        if file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
            raise EdgeError(
                f"{file} is not the file that was exported: expected {expected['bytes']} bytes with sha256 "
                f"{expected['sha256'][:16]}..., found {file.stat().st_size} bytes with {sha256(file)[:16]}.... "
                "Restore its folder (`dvc checkout`) or fetch it again."
            )
    return found

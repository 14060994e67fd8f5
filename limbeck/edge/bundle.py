"""The manifest of a published bundle: which file runs, what it takes and gives, what it needs, what was promised.

Targets metadata signs the manifest's length and digest, the manifest every other file's: a chain from the root key.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from limbeck.edge import EdgeError
from limbeck.edge.manifest import NAME, sha256
from limbeck.edge.tokenizer import NAME as TOKENIZER

FORMAT = 2
MAX_MANIFEST_BYTES = 1_000_000
MAX_BUNDLE_BYTES = 1_000_000_000
GOLDEN = "golden.npz"
INT8_STEPS = 2
"""How many steps of an 8-bit scale over the logits' range an int8 file's answers may be off: kernels round differently
from processor to processor. Float files keep the export's own tolerance."""


@dataclass(frozen=True)
class File:
    """What a file has to be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A bundle as its manifest describes it.

    Attributes:
        serial: the registry's version number.
        key: `SERIAL-DIGEST`, the name of its folder; a serial published again with other content has another.
        files: every file but the manifest, by name.
        variant: the network's name, under which its golden answers stand.
        shape: of one raw sample, [...].
        dtype: of the raw input.
        input_name: of the graph's input.
        classes: names, in the order of the logits.
        max_difference: allowed to golden logits, relative to the largest.
        max_p95_ms: the contract's clause, if it has one.
        threads: of one inference, as measured for the contract.
        batch_size: samples of one inference, as measured for the contract.
        runtime: packages and the versions that will do.
        instructions: of PROOF, without which it is another bundle's turn.
        minimum_agent: the version of limbeck.
    """

    name: str
    serial: int
    key: str
    files: dict[str, File]
    variant: str
    shape: tuple[int, ...]
    dtype: str
    input_name: str
    classes: tuple[str, ...]
    max_difference: float
    max_p95_ms: float | None
    threads: int
    batch_size: int
    runtime: dict[str, str]
    instructions: str
    minimum_agent: str

    @property
    def model_file(self) -> str:
        """The file that runs: ORT's own format where it was shipped."""
        return f"{self.variant}.ort" if f"{self.variant}.ort" in self.files else f"{self.variant}.onnx"

    @property
    def has_tokenizer(self) -> bool:
        """Whether raw samples are texts, which a tokenizer beside the model turns into its input."""
        return TOKENIZER in self.files

    @property
    def bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(file.bytes for file in self.files.values())


def key_of(serial: int, digest: str) -> str:
    """The name of a bundle on a device."""
    return f"{serial}-{digest[:16]}"


def _is_plain(name: str) -> bool:
    """Whether it stays in its folder; made on one system and read on another, neither's separators may lead out."""
    return Path(name).name == name == PureWindowsPath(name).name and name not in ("", ".", "..", NAME)


def parse(content: bytes) -> Manifest:
    """Read a manifest of format 2.

    Raises:
        EdgeError: it is none, names a place outside its folder, or is larger than a device takes.

    """
    try:
        found: dict[str, Any] = json.loads(content)
        if found["format"] != FORMAT:
            raise EdgeError(
                f"the bundle's manifest has format {found['format']}, this agent reads {FORMAT}; update it."
            )
        p95 = found["contract"].get("max_p95_ms")
        manifest = Manifest(
            name=str(found["name"]),
            serial=int(found["serial"]),
            key=key_of(int(found["serial"]), hashlib.sha256(content).hexdigest()),
            files={name: File(int(f["bytes"]), str(f["sha256"])) for name, f in found["files"].items()},
            variant=str(found["variant"]),
            shape=tuple(int(size) for size in found["input"]["shape"][1:]),
            dtype=str(found["input"]["dtype"]),
            input_name=str(found["input"]["name"]),
            classes=tuple(map(str, found["classes"])),
            max_difference=max(
                float(found["tolerance"]["max_difference"]),
                INT8_STEPS * 2 / 255 if str(found["variant"]).endswith("int8") else 0.0,
            ),
            max_p95_ms=None if p95 is None else float(p95),
            threads=int(found["measured"].get("threads", 1)),
            batch_size=int(found["measured"].get("batch_size", 1)),
            runtime={str(name): str(versions) for name, versions in found["runtime"].items()},
            instructions=str(found["instructions"]),
            minimum_agent=str(found["minimum_agent"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgeError(f"the bundle's manifest is none of format {FORMAT}: {error!r}. Publish it again.") from None
    for name, file in manifest.files.items():
        if not _is_plain(name) or file.bytes < 0:
            raise EdgeError(f"the bundle's manifest names {name!r}, which is outside its folder; it cannot be trusted.")
    for name in (manifest.model_file, GOLDEN):
        if name not in manifest.files:
            raise EdgeError(f"the bundle's manifest lists no {name}; publish it again.")
    if manifest.bytes > MAX_BUNDLE_BYTES:
        raise EdgeError(f"the bundle has {manifest.bytes:,} bytes, a device takes up to {MAX_BUNDLE_BYTES:,}.")
    return manifest


def read(folder: Path) -> Manifest:
    """Read a bundle on this device and hold its manifest against its key, every file against the manifest.

    Raises:
        EdgeError: something is missing, or is not what was published.

    """
    try:
        manifest = parse((folder / NAME).read_bytes())
        for name, file in manifest.files.items():
            if (folder / name).stat().st_size != file.bytes or sha256(folder / name) != file.sha256:
                raise EdgeError(f"{folder / name} is not the file that was published.")
    except OSError as error:
        raise EdgeError(f"{folder} is no whole bundle: {error.strerror}: {error.filename}.") from None
    if manifest.key != folder.name:
        raise EdgeError(f"{folder / NAME} is not the manifest that was published as {folder.name}.")
    return manifest

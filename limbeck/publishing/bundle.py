"""The bundle: what a device gets of a registered version, described by a manifest that stands for all of it."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.edge import manifest as exported
from limbeck.errors import PublishingError
from limbeck.tracking import registry

FORMAT = 2
MINIMUM_AGENT = "0.1.0"
"""The first Limbeck whose agent reads FORMAT."""
KEPT = ("classes", "input", "output", "opset", "tolerance", "data_digest", "teacher_digest")
"""What the export's manifest says of every variant and the bundle's one repeats."""
PREPROCESSING = "inside the file: `input` takes raw samples of its dtype and shape"


def make(model: str, serial: int, folder: Path, *, uri: str) -> str:
    """Fetch a registered version's files and describe them. The same version always gives the same bytes.

    Args:
        model: name of the registered model.
        serial: its version.
        folder: empty; holds manifest, ONNX file and golden vectors afterwards.
        uri: the tracking server.

    Returns:
        sha256 of the manifest.

    Raises:
        TrackingError: the server does not answer or fails, has no such version, or gives other files than were registered.
        PublishingError: the version was registered without its contract and figures.

    """
    tags = registry.fetch_bundle(model, str(serial), folder, uri=uri)
    described: dict[str, Any] = json.loads((folder / exported.NAME).read_bytes())
    try:
        contract, measured = json.loads(tags["limbeck.contract"]), json.loads(tags["limbeck.measured"])
        variant = tags["limbeck.variant"]
        written = {
            "format": FORMAT,
            "name": model,
            "serial": serial,
            "variant": variant,
            "minimum_agent": MINIMUM_AGENT,
            "runtime": {"onnxruntime": _minor_of(measured["machine"]["onnxruntime"])},
            "instructions": measured.pop("instructions"),
            "preprocessing": PREPROCESSING,
            **{key: described[key] for key in KEPT},
            "contract": contract,
            "measured": measured,
            "identity": tags["limbeck.identity"],
        }
    except KeyError as error:
        target = model.partition("-")[2] or "T"
        raise PublishingError(
            f"version {serial} of {model} was registered without {error}, which devices hold it against. Register it "
            f"again, which adds what is missing: `dvc repro --force --single-item register@{target}`."
        ) from None
    names = sorted(path.name for path in folder.iterdir() if path.name != exported.NAME)
    sizes = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": exported.sha256(folder / name)} for name in names
    }
    content = json.dumps({**written, "files": sizes}, indent=2, allow_nan=False).encode() + b"\n"
    (folder / exported.NAME).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Registered:
    """MLflow's registry at a tracking server. See `Registry`; every method raises what `make` raises."""

    uri: str

    def serial_at(self, model: str, alias: str) -> int:
        """See `Registry`."""
        return int(registry.serial_at(model, alias, uri=self.uri))

    def make_bundle(self, model: str, serial: int, folder: Path) -> str:
        """See `make`."""
        return make(model, serial, folder, uri=self.uri)

    def mirror(self, model: str, alias: str, number: str | None) -> str | None:
        """See `Registry`."""
        return registry.mirror(model, alias, number, uri=self.uri)


def _minor_of(version: str) -> str:
    """The range of versions that answer like this one: kernels, and with them last bits, change between minors."""
    major, minor = re.findall(r"\d+", version)[:2]
    return f">={major}.{minor},<{major}.{int(minor) + 1}"

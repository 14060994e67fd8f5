"""A fleet as the server sees it: files that devices put there, as the device's own code writes them."""

import json
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import bundle, spool
from limbeck.edge.trust import share_of
from limbeck.edge.usage import Usage
from limbeck.publishing.places import Folder
from limbeck.publishing.serving import Canary, Served
from limbeck.refresh.gate import answered
from tests.tracking.conftest import MODEL

BATCH = np.zeros((1, 4), np.uint8)


class Uploads:
    """A place of reports in memory."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}

    def reporters(self) -> list[str]:
        return list(self.files)

    def told(self, reporter: str) -> list[str]:
        return list(self.files[reporter])

    def hear(self, reporter: str, name: str) -> bytes | None:
        return self.files[reporter].get(name)


class Fleet(Uploads, Folder):
    """A folder into which devices report, too."""

    def __init__(self, path: Path) -> None:
        Folder.__init__(self, path)
        Uploads.__init__(self)

    def put_report(self, device: str, content: dict[str, Any] | bytes, moment: float, key: str) -> None:
        folder = self.files.setdefault(device, {})
        said = content if isinstance(content, bytes) else json.dumps(content).encode()
        folder[f"{stamp(moment)}-{key}-{len(folder):08x}.json"] = said

    def tells(self, device: str, served: Served, moment: float, **figures: Any) -> None:
        """A report of an hour's use that ended at a moment."""
        self.put_report(device, usage(device, served, moment, **figures), moment - 3600, key_of(served))

    def gives_up(
        self, device: str, served: Served, moment: float, why: str = "too slow", event: str = "refused"
    ) -> None:
        said = {**head(device, served, "event"), "time": moment, "event": event, "why": why}
        self.put_report(device, said, moment, key_of(served))


def stamp(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def key_of(served: Served) -> str:
    return bundle.key_of(served.serial, served.sha256)


def head(device: str, served: Served, kind: str) -> dict[str, Any]:
    home: Any = SimpleNamespace(device=SimpleNamespace(id=device, model=MODEL))
    return spool.header(home, kind, key_of(served))


def usage(device: str, served: Served, moment: float, **figures: Any) -> dict[str, Any]:
    """A report of use; see `used`."""
    said: dict[str, Any] = json.loads(used(**figures))
    return {**head(device, served, "usage"), "dropped": 0, **said, "from": moment - 3600, "to": moment}


@cache
def used(calls: int = 100, errors: int = 0, ms: float = 0.5, logit: float = 3.0) -> str:
    """What `limbeck.edge.usage` makes of so many calls that all took `ms` and all answered with one logit above zero."""
    made = Usage()
    for _ in range(calls):
        made.note(int(ms * 1e6), BATCH, np.array([[logit, 0.0]], np.float32))
    for _ in range(errors):
        made.note_error("Fail")
    made.digest()
    return json.dumps(made.report())


def asked(file: Path, x: NDArray[Any]) -> dict[str, Any]:
    """What `limbeck.edge.usage` tells of raw samples [N, ...] that an ONNX file was asked one by one."""
    made = Usage()
    for sample, logits in zip(x, np.concatenate([*answered(file, x, threads=1)]), strict=True):
        made._input_due = 0.0  # every input is looked at
        made.note(1000, sample[None], logits[None])
        made.digest()
    return dict(json.loads(json.dumps(made.report())))


def devices(canary: Canary, ours: int, theirs: int) -> tuple[list[str], list[str]]:
    """Ids of devices whose turn it is and of others."""
    ids = [f"{number:016x}" for number in range(100 * (ours + theirs) + 100)]
    turn = [device for device in ids if share_of(canary.salt, device) < canary.share]
    others = [device for device in ids if share_of(canary.salt, device) >= canary.share]
    assert len(turn) >= ours
    return turn[:ours], others[:theirs]

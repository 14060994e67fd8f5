"""A window of new samples on the disk: what arrived at one time, never changed again.

    windows/NAME/
        x.npy               raw samples [N, ...], of the dtype and shape that data/meta.json says
        y.npy               int64 [N], class index into `classes`; -1: no label
        confidence.npy      float32 [N], the teacher's probability of its likeliest class where it was asked, else NaN
        keys.json           what each sample was called where it came from: its number, its file, DEVICE/FILE
        window.json         `About`

`confidence.npy` is there when a teacher was asked. A row with a label and no confidence was labelled by people.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.atomic import sha256, write_json
from limbeck.data.content import intact
from limbeck.errors import DataError

ABOUT, KEYS, CONFIDENCE = "window.json", "keys.json", "confidence.npy"
UNLABELLED = -1

LabelledBy: TypeAlias = Literal["people", "teacher", "both", "none"]


class Counts(BaseModel):
    """How many samples. The last four were left out of the window.

    Attributes:
        labelled: have a label, by people or by the teacher.
        unlabelled: have none.
        by_people: of the labelled ones.
        repeated: stand in data/, in an earlier window, or twice in this one.
        broken: could not be read.
        not_finite: hold NaN or infinity.
        out_of_range: hold a value far from those of the training split.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labelled: int
    unlabelled: int
    by_people: int
    repeated: int
    broken: int
    not_finite: int
    out_of_range: int

    @property
    def kept(self) -> int:
        """Samples of the window."""
        return self.labelled + self.unlabelled

    @property
    def offered(self) -> int:
        """Samples that arrived."""
        return self.kept + self.repeated + self.unusable

    @property
    def unusable(self) -> int:
        """Samples that were left out for what is in them."""
        return self.broken + self.not_finite + self.out_of_range


class About(BaseModel):
    """What `window.json` says.

    Attributes:
        name: of the window, and of its folder.
        origin: the drop folder, or samples that devices uploaded.
        arrived: when its last byte did (UTC).
        classes: the known ones in their order, and behind them those that are new.
        counts: of samples.
        labelled_by: who said the labels that there are.
        teacher: digest of the one that was asked; None: none was.
        replaces: digest of the window whose samples these are, with fewer labels.
        source: sha256 of what was dropped.
        notes: what else there is to know, one line each.
        sha256: of each array.
        digest: over the content, as `data/meta.json` has one.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    origin: Literal["drop", "feedback"]
    arrived: datetime
    classes: tuple[str, ...]
    counts: Counts
    labelled_by: LabelledBy
    teacher: str | None
    replaces: str | None
    source: str
    notes: tuple[str, ...]
    sha256: dict[str, str]
    digest: str


class Origin(BaseModel):
    """What prepared data tells of a window that it was made of.

    Attributes:
        name: of the window.
        digest: of its content.
        samples: that were taken.
        repeated: left out, for they stand among the old samples or in a later window.
        unlabelled: left out, for nobody labelled them with enough confidence.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str
    samples: int
    repeated: int
    unlabelled: int


@dataclass(frozen=True)
class Window:
    """A window, read.

    Attributes:
        x: [N, ...] raw, memory-mapped.
        y: [N] class index into `about.classes`; -1: no label.
        confidence: [N], NaN where the teacher was not asked.
        about: see `About`.

    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    confidence: NDArray[np.float32]
    about: About

    @property
    def is_by_people(self) -> NDArray[np.bool_]:
        """[N]: labelled, and not by the teacher."""
        return np.asarray((self.y != UNLABELLED) & np.isnan(self.confidence))


def seal(files: Iterable[Path], classes: tuple[str, ...]) -> dict[str, Any]:
    """`sha256` and `digest` of a window's arrays."""
    digests = {path.name: sha256(path) for path in sorted(files)}
    content = json.dumps([classes, sorted(digests.items())])
    return {"sha256": digests, "digest": hashlib.sha256(content.encode()).hexdigest()}


def write_about(folder: Path, about: About) -> None:
    """Write `window.json`."""
    write_json(folder / ABOUT, about.model_dump(mode="json"))


def read_about(folder: Path) -> About:
    """Read `window.json`.

    Raises:
        DataError: it is missing or not what the intake writes.

    """
    try:
        raw: Any = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return About.model_validate(raw)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder} is no window: it has no {ABOUT}. `limbeck windows list` names them.") from None
    except (ValueError, ValidationError) as error:
        raise DataError(
            f"{folder / ABOUT} is not what the intake writes: {error}. `dvc checkout {folder}` restores it."
        ) from None


def read_window(folder: Path) -> Window:
    """Read a window, checked.

    Raises:
        DataError: a file is missing, or its bytes are not those that arrived.

    """
    about = read_about(folder)
    for name, expected in about.sha256.items():
        intact(folder / name, expected, since="it arrived", restore=str(folder))
    x = np.load(folder / "x.npy", mmap_mode="r", allow_pickle=False)
    y = np.load(folder / "y.npy", allow_pickle=False)
    confidence = np.full(len(y), np.nan, np.float32)
    if CONFIDENCE in about.sha256:
        confidence = np.load(folder / CONFIDENCE, allow_pickle=False)
    return Window(x, y, confidence, about)


def read_keys(folder: Path) -> list[str]:
    """What each sample of a window was called where it came from."""
    keys: list[str] = json.loads((folder / KEYS).read_text(encoding="utf-8"))
    return keys


def labelled_in(windows: Sequence[Path]) -> dict[str, int]:
    """How many samples of each class people labelled.

    Raises:
        DataError: a window is not what it should be.

    """
    counts = Counter[str]()
    for folder in windows:
        found = read_window(folder)
        counts.update(found.about.classes[label] for label in found.y[found.is_by_people].tolist())
    return dict(counts)

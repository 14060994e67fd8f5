"""Which class a file belongs to, by the folder that it lies in: `CLASS/*`, or `train/CLASS/*` and `test/CLASS/*`."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.data.sources.packed import Packed
from limbeck.data.sources.source import Broken, OnError, Part, Source
from limbeck.errors import DataError

OWN = ("train", "test")
NO_CLASSES = {"train", "training", "test", "testing", "val", "valid", "validation"}
"""Names of folders that are taken for splits: with any of them there, exactly `train` and `test` must be."""

Samples = Callable[[NDArray[np.bool_]], Iterator[NDArray[Any] | Broken]]
"""The samples of the wanted [N] files, in order."""


@dataclass(frozen=True)
class Labelled:
    """Files with a class each.

    Attributes:
        place: of them.
        what: they hold, in a word.
        labels: [N] class names.
        is_test: [N], those of a test split of their own.

    """

    place: Path
    what: str
    labels: NDArray[np.str_]
    is_test: NDArray[np.bool_]

    def source(self, samples: Samples, on_error: OnError) -> Source:
        """The source of these files; classes are sorted.

        Raises:
            DataError: a class stands in the test split alone.
        """
        classes, label_of = np.unique(self.labels, return_inverse=True)

        def part(wanted: NDArray[np.bool_]) -> Part:
            return Part(label_of[wanted].astype(np.int64), lambda: samples(wanted))

        names, train = tuple(classes.tolist()), part(~self.is_test)
        test = part(self.is_test) if self.is_test.any() else None
        missing = set(names) - set(classes[np.unique(train.labels)].tolist())
        if missing:
            raise DataError(f"{self.place}: no training {self.what} of {', '.join(sorted(missing))}, which test has.")
        return Source(self.place.name.split(".")[0], names, train, test, on_error)


def by_folder(place: Path, files: Packed, what: str, how: str) -> Labelled:
    """Files labelled by their folders.

    Args:
        place: of them.
        files: that were listed there, one at least.
        what: they hold, in a word.
        how: they should lie, told where they do not.

    Raises:
        DataError: another layout.

    """
    folders: dict[str, int] = {}
    folder_of = array("L")
    for number in range(len(files.names)):
        folder_of.append(folders.setdefault(files.names[number].rpartition("/")[0], len(folders)))
    firsts = [files.names[folder_of.index(folder)] for folder in folders.values()]
    layout = _layout(place, list(folders), firsts, f"{what}s", how)
    own = np.asarray(folder_of)
    labels = np.array([label for _, label in layout])
    return Labelled(place, what, labels[own], np.array([which == "test" for which, _ in layout])[own])


def _layout(place: Path, folders: list[str], firsts: list[str], whats: str, how: str) -> list[tuple[str, str]]:
    """`train/cat` -> (`train`, `cat`); `cat` -> (``, `cat`); what is in front of all of them does not count.

    Args:
        place: of them.
        folders: that hold files.
        firsts: a file of each.
        whats: the files hold.
        how: they should lie.
    """
    paths = [folder.split("/") if folder else [] for folder in folders]
    while all(len(path) > 1 and path[0] == paths[0][0] for path in paths) and paths[0][0].lower() not in NO_CLASSES:
        paths = [path[1:] for path in paths]
    tops = {path[0] for path in paths if path}
    has_own = tops == set(OWN)
    if not has_own and any(top.lower() in NO_CLASSES for top in tops):
        raise DataError(f"{place} has {whats} in {', '.join(sorted(tops))}. {how}")
    for path, first in zip(paths, firsts, strict=True):
        if len(path) < 1 + has_own:
            raise DataError(f"{place}: {first} lies in no class folder. {how}")
        if len(path) > 1 + has_own:
            raise DataError(f"{place}: {first} lies deeper than in a class folder. {how}")
    return [(path[0] if has_own else "", path[-1]) for path in paths]

"""Old samples in the splits they have, and behind them windows of new ones that are still to be divided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from limbeck.data.content import fingerprints
from limbeck.data.prepared import NAMES, Meta, read, read_meta, read_origin, read_texts, tokenizer_file
from limbeck.data.sources.arrays import streamed
from limbeck.data.sources.source import Part, Source, located
from limbeck.data.window import UNLABELLED, Origin, Window, read_window
from limbeck.edge import tokenizer
from limbeck.errors import DataError

HOW = "Expected a folder that `prepare` wrote."
HOW_WINDOW = "Expected a folder of windows/; `limbeck windows list` names them."


def windows(
    *,
    base: str,
    folders: Annotated[list[str], Field(min_length=1)],
    replay: Annotated[float, Field(ge=0, le=1)],
    classes: list[str] | None = None,
    leave_out: list[str] | None = None,
    seed: NonNegativeInt = 0,
    digest: str | None = None,
    root: str | None = None,
    root_digest: str | None = None,
) -> Source:
    """Windows of new samples beside the data that a champion was made of.

    Old samples keep their split: a model never meets in train what its champion was examined on. New ones are divided
    by `data.split`, whose `test` has to be a share here. A new sample that stands among the old ones, byte for byte,
    in whatever split, is left out and counted; of one that stands in two windows the later window's label counts.
    Without a label a sample is left out, too. Samples are streamed.

    Where the champion itself was made of windows, what `base` holds of these stays, and the replay is of `root`: a share of
    a share would be next to nothing after a few refreshes.

    Args:
        base: a prepared folder, `data/` of the champion's workspace.
        folders: windows, in the order in which they arrived.
        replay: which share of the old training samples trains again, of each class; old samples of other splits all stay.
        classes: names of all classes, the known ones first. Null: those of `base`, then the windows' new ones.
        leave_out: new classes whose samples are not taken, for there are too few.
        seed: of which old samples are replayed.
        digest: of the content of `base`; another content is refused. Null: any will do.
        root: the prepared folder of the first champion, which had learned from no window. Null: `base` itself, or, where that
            was made of windows, what stands in it of the first data, all of it.
        root_digest: of its content.

    Raises:
        DataError: a folder that is none, other samples or classes than expected, or no new sample at all.

    """
    old = _expected(base, digest)
    first = old if root is None else _expected(root, root_digest)
    meta = read_meta(old)
    places = [located(folder, HOW_WINDOW) for folder in folders]
    found = [_without(read_window(place), leave_out or ()) for place in places]
    for place, window in zip(places, found, strict=True):
        _check_kind(place, window, meta)
    names = _classes(meta.classes, found, classes)
    chance = np.random.default_rng(seed)
    parts, known = list[_Rows](), list[NDArray[np.uint64]]()
    for number, split in enumerate(NAMES):
        _, y = read(old, split)  # x is checked, and read from front to back below
        known.append(fingerprints(streamed(old / split, "x")))
        origin = _as_learned(read_origin(old, split), meta)
        taken = np.ones(len(y), bool)
        if split == "train" and root is None:
            taken[origin == 0] = _replayed(y[origin == 0], 1.0 if meta.windows else replay, chance)
        elif split == "train":
            _, first_y = read(first, split)
            known.append(fingerprints(streamed(first / split, "x")))
            mask = _replayed(first_y, replay, chance)
            parts.append(_Rows(first / split, mask, np.asarray(first_y), number, np.zeros(len(mask), np.int16)))
            taken = origin != 0
        parts.append(_Rows(old / split, taken, np.asarray(y), number, origin))
    new, told = _new(places, found, np.concatenate(known))
    for number, (place, window, mask) in enumerate(zip(places, found, new, strict=True), start=1):
        index_of = np.array(
            [names.index(name) if name in names else UNLABELLED for name in window.about.classes], np.int64
        )
        parts.append(_Rows(place, mask, index_of[window.y], -1, np.full(len(mask), number, np.int16)))
    if not any(mask.any() for mask in new):
        raise DataError(
            f"none of {sum(len(window.y) for window in found):,} samples of {', '.join(folders)} is new and labelled; "
            "there is nothing to learn. Wait for another window, or for labels."
        )

    def samples() -> Iterator[NDArray[Any]]:
        for each in parts:
            yield from compress(streamed(each.folder, "x"), each.taken)

    part = Part(
        np.concatenate([each.labels[each.taken] for each in parts]),
        samples,
        np.concatenate([np.full(int(each.taken.sum()), each.split, np.int8) for each in parts]),
        np.concatenate([each.origins[each.taken] for each in parts]),
    )
    learned = (*meta.learned, *meta.windows)
    if (file := tokenizer_file(old)) is None:
        return Source(meta.name, names, part, windows=told, learned=learned)

    def texts() -> Iterator[str | None]:  # a window holds codes alone
        for each in parts:
            if each.split < 0:
                yield from (None for _ in range(int(each.taken.sum())))
            else:
                yield from compress(read_texts(each.folder.parent, NAMES[each.split]), each.taken)

    return Source(
        meta.name, names, replace(part, texts=texts), windows=told, learned=learned, tokenizer=tokenizer.read(file)
    )


@dataclass(frozen=True)
class _Rows:
    """Rows of a folder with x.npy: which are taken [N], labels [N], the split as its place in `NAMES` or -1, origins [N]."""

    folder: Path
    taken: NDArray[np.bool_]
    labels: NDArray[np.int64]
    split: int
    origins: NDArray[np.int16]


def _expected(folder: str, digest: str | None) -> Path:
    """A prepared folder, of the content that is expected."""
    place = located(folder, HOW)
    if digest not in (None, found := read_meta(place).digest):
        raise DataError(
            f"{place} is not the data expected: digest {digest}, found {found}. Restore it (`dvc checkout`), or "
            "give data.source the digest of what is to be used."
        )
    return place


def _as_learned(origin: NDArray[np.int16], meta: Meta) -> NDArray[np.int16]:
    """Where a champion's samples came from, as the next one has it: its own windows stand behind those before them."""
    return np.where(origin > 0, -origin - len(meta.learned), origin).astype(np.int16)


def _without(window: Window, classes: Sequence[str]) -> Window:
    """A window whose samples of these classes have no label."""
    out = [index for index, name in enumerate(window.about.classes) if name in classes]
    return replace(window, y=np.where(np.isin(window.y, out), UNLABELLED, window.y)) if out else window


def _replayed(y: NDArray[np.int64], share: float, chance: np.random.Generator) -> NDArray[np.bool_]:
    """[N]: a share of each class, drawn by chance, at least one sample where there is any share."""
    order, chosen = chance.permutation(len(y)), np.zeros(len(y), bool)
    for label in np.unique(y):
        own = order[y[order] == label]
        chosen[own[: max(round(share * len(own)), int(share > 0))]] = True
    return chosen


def _new(
    places: list[Path], found: list[Window], known: NDArray[np.uint64]
) -> tuple[list[NDArray[np.bool_]], tuple[Origin, ...]]:
    """Which samples of each window are taken, [N] each, and a word on each window."""
    masks, told = [], []
    for place, window in reversed(list(zip(places, found, strict=True))):
        prints = fingerprints(streamed(place, "x"))
        first = np.zeros(len(prints), bool)
        first[np.unique(prints, return_index=True)[1]] = True
        is_new, is_labelled = first & ~np.isin(prints, known), window.y != UNLABELLED
        taken = is_new & is_labelled
        known = np.concatenate([known, prints[taken]])
        masks.append(taken)
        about = window.about
        told.append(
            Origin(
                name=about.name, digest=about.digest, samples=int(taken.sum()), repeated=int((~is_new).sum()),
                unlabelled=int((is_new & ~is_labelled).sum()),
            )
        )  # fmt: skip
    return masks[::-1], tuple(told[::-1])


def _check_kind(place: Path, window: Window, meta: Meta) -> None:
    if (window.x.shape[1:], str(window.x.dtype)) != (meta.shape, meta.dtype):
        raise DataError(
            f"{place} holds samples of {window.x.dtype}{list(window.x.shape[1:])}; expected {meta.dtype}"
            f"{list(meta.shape)}, as the old ones. Leave that window out."
        )


def _classes(known: tuple[str, ...], found: list[Window], asked: list[str] | None) -> tuple[str, ...]:
    """All classes, the known ones first; new ones in the order of the windows."""
    new = dict.fromkeys(
        window.about.classes[label]
        for window in found
        for label in np.unique(window.y[window.y != UNLABELLED]).tolist()
        if window.about.classes[label] not in known
    )
    if asked is None:
        return (*known, *new)
    if tuple(asked[: len(known)]) != known or len(set(asked)) < len(asked):
        raise DataError(
            f"data.source.classes is {', '.join(asked)}; expected the known ones first, in their order and each once: "
            f"{', '.join(known)}."
        )
    if foreign := [name for name in new if name not in asked]:
        raise DataError(
            f"windows hold samples of {', '.join(foreign)}, which data.source.classes does not name. Add it behind the "
            "others, or leave those windows out."
        )
    return tuple(asked)

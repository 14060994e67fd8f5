"""Old samples in the splits they have, and behind them windows of new ones that are still to be divided."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from limbeck.data.content import fingerprints
from limbeck.data.prepared import NAMES, Meta, read, read_meta, read_texts, tokenizer_file
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
    seed: NonNegativeInt = 0,
    digest: str | None = None,
) -> Source:
    """Windows of new samples beside the data that a champion was made of.

    Old samples keep their split: a model never meets in train what its champion was examined on. New ones are divided
    by `data.split`, whose `test` has to be a share here. A new sample that stands among the old ones, byte for byte,
    in whatever split, is left out and counted; of one that stands in two windows the later window's label counts.
    Without a label a sample is left out, too. Samples are streamed.

    Args:
        base: a prepared folder, `data/` of the champion's workspace.
        folders: windows, in the order in which they arrived.
        replay: which share of the old training samples trains again, of each class; old samples of other splits all stay.
        classes: names of all classes, the known ones first. Null: those of `base`, then the windows' new ones.
        seed: of which old samples are replayed.
        digest: of the content of `base`; another content is refused. Null: any will do.

    Raises:
        DataError: a folder that is none, other samples or classes than expected, or no new sample at all.

    """
    old = located(base, HOW)
    meta = read_meta(old)
    if digest not in (None, meta.digest):
        raise DataError(
            f"{old} is not the data expected: digest {digest}, found {meta.digest}. Restore it (`dvc checkout`), or "
            "give data.source the digest of what is to be used."
        )
    places = [located(folder, HOW_WINDOW) for folder in folders]
    found = [read_window(place) for place in places]
    for place, window in zip(places, found, strict=True):
        _check_kind(place, window, meta)
    names = _classes(meta.classes, found, classes)
    chance = np.random.default_rng(seed)
    labels, assigned, masks, known = [], [], [], []
    for number, split in enumerate(NAMES):
        _, y = read(old, split)  # x is checked, and read from front to back below
        mask = _replayed(y, replay, chance) if split == "train" else np.ones(len(y), bool)
        masks.append(mask)
        labels.append(np.asarray(y[mask]))
        assigned.append(np.full(int(mask.sum()), number, np.int8))
        known.append(fingerprints(streamed(old / split, "x")))
    origins = [np.zeros(len(part), np.int16) for part in labels]
    new, told = _new(places, found, np.concatenate(known))
    for number, (window, mask) in enumerate(zip(found, new, strict=True), start=1):
        index_of = np.array([names.index(name) for name in window.about.classes], np.int64)
        labels.append(index_of[window.y[mask]])
        assigned.append(np.full(int(mask.sum()), -1, np.int8))
        origins.append(np.full(int(mask.sum()), number, np.int16))
    if not any(mask.any() for mask in new):
        raise DataError(
            f"none of {sum(len(window.y) for window in found):,} samples of {', '.join(folders)} is new and labelled; "
            "there is nothing to learn. Wait for another window, or for labels."
        )

    def samples() -> Iterator[NDArray[Any]]:
        for folder, mask in zip([*(old / split for split in NAMES), *places], [*masks, *new], strict=True):
            yield from compress(streamed(folder, "x"), mask)

    part = Part(np.concatenate(labels), samples, np.concatenate(assigned), np.concatenate(origins))
    if (file := tokenizer_file(old)) is None:
        return Source(meta.name, names, part, windows=told)

    def texts() -> Iterator[str | None]:  # a window holds codes alone
        for split, mask in zip(NAMES, masks, strict=True):
            yield from compress(read_texts(old, split), mask)
        yield from (None for mask in new for _ in range(int(mask.sum())))

    return Source(meta.name, names, replace(part, texts=texts), windows=told, tokenizer=tokenizer.read(file))


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

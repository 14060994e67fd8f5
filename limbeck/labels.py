"""Soft labels: the teacher's logits [V, N, K] for V numbered views of every training sample.

They belong to pixels: `labels.json` carries the augmentation, its seed, and the digests of data and teacher,
so that a student meets each logit with the very view it was made for.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from limbeck.atomic import reserve, sha256, write_json
from limbeck.components import Component, bind
from limbeck.data.augment import AUGMENTS, Views
from limbeck.data.splits import read, read_meta
from limbeck.errors import DataError
from limbeck.params import LabelParams

LOGITS = "logits.npy"
LARGEST = float(np.finfo(np.float16).max)


class LabelMeta(BaseModel):
    """What `labels/labels.json` says. `teacher_quality` is the teacher's mean score on validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    augment: Component
    num_views: int
    seed: int
    data_digest: str
    teacher_digest: str
    teacher_quality: float
    teacher_parameters: int
    sha256: str


def required_mb(num_views: int, num_samples: int, num_classes: int) -> float:
    """Size of the stored logits: V x N x K x 2 bytes, in MB of 1,000,000."""
    return num_views * num_samples * num_classes * 2 / 1e6


def write(
    folder: Path,
    data: Path,
    teacher: nn.Module,
    params: LabelParams,
    *,
    seed: int,
    teacher_digest: str,
    teacher_quality: float,
    progress: Callable[[int, int, str], None],
) -> None:
    """Let the teacher answer every view and store its logits in fp16, view by view.

    Raises:
        DataError: they would take more than `max_mb`.

    """
    x, _ = read(data, "train")
    meta = read_meta(data)
    needed = required_mb(params.num_views, len(x), len(meta.classes))
    if needed > params.max_mb:
        raise DataError(
            f"soft labels need {params.num_views} views x {len(x)} samples x {len(meta.classes)} classes x 2 bytes = "
            f"{needed:.1f} MB; label.max_mb allows {params.max_mb:g}. Raise it, or lower label.num_views."
        )
    torch.set_num_threads(params.threads)
    views = Views(x, bind(params.augment, AUGMENTS, "augmentation")(), seed)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (params.num_views, len(x), len(meta.classes))
    stored = np.lib.format.open_memmap(folder / LOGITS, mode="w+", dtype=np.float16, shape=shape)
    reserve(folder / LOGITS)
    teacher.eval()
    with torch.inference_mode():
        for view in range(params.num_views):
            for start in range(0, len(x), params.batch_size):
                indices = torch.arange(start, min(start + params.batch_size, len(x)))
                logits = teacher(views.get(view, indices)).float().numpy()
                if not np.abs(logits).max() <= LARGEST:
                    raise DataError(
                        f"the teacher's logits reach {np.abs(logits).max():.3g}; soft labels hold up to {LARGEST:,.0f}. "
                        "A teacher that answers so is broken: look at its training, or its input normalization."
                    )
                stored[view, indices.numpy()] = logits
            progress(view + 1, params.num_views, f"view {view + 1}/{params.num_views}")
    stored.flush()
    del stored
    label_meta = LabelMeta(
        augment=params.augment,
        num_views=params.num_views,
        seed=seed,
        data_digest=meta.digest,
        teacher_digest=teacher_digest,
        teacher_quality=teacher_quality,
        teacher_parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        sha256=sha256(folder / LOGITS),
    )
    write_json(folder / "labels.json", label_meta.model_dump(mode="json"))


def read_labels_meta(folder: Path) -> LabelMeta:
    """Read `labels.json`.

    Raises:
        DataError: it is missing or not what `label` writes.

    """
    try:
        raw: Any = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        return LabelMeta.model_validate(raw)
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{folder}/labels.json is not what label writes: {error}. Run `dvc repro -f label`.") from None


def read_views(data: Path, labels: Path, *, with_teacher: bool) -> tuple[Views, NDArray[np.float16] | None]:
    """The labelled views and the logits [V, N, K] made for them.

    A student that must do without a teacher gets the same views in the same order, and None.

    Raises:
        DataError: the logits changed, or were made for other data.
    """
    meta, label_meta = read_meta(data), read_labels_meta(labels)
    if label_meta.data_digest != meta.digest:
        raise DataError(
            f"{labels} was made for data {label_meta.data_digest[:16]}..., {data} is {meta.digest[:16]}...; "
            "run `dvc repro label`."
        )
    path = labels / LOGITS
    if sha256(path) != label_meta.sha256:
        raise DataError(f"{path} has changed since it was made; `dvc checkout --force labels` restores it.")
    x, _ = read(data, "train")
    views = Views(x, bind(label_meta.augment, AUGMENTS, "augmentation")(), label_meta.seed, label_meta.num_views)
    return views, np.load(path, mmap_mode="r", allow_pickle=False) if with_teacher else None

"""Soft labels: the teacher's logits [V, N, K] for V numbered views of every training sample.

Its features [V, N, D], what enters its head, lie beside them when `label.features` asks: they speak for a teacher
that answers other classes, too. Both belong to pixels: `labels.json` carries the augmentation, its seed, and the
digests of data and teacher, so that a student meets each logit with the very view it was made for.

Of thousands of classes `label.top` keeps the largest logits: `limbeck.top_logits` says what becomes of the others.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from limbeck.atomic import reserve, sha256, write_json
from limbeck.components import Component, bind
from limbeck.data.augment import AUGMENTS, Views
from limbeck.data.splits import read, read_meta
from limbeck.errors import DataError
from limbeck.models.compiled import compiled, pays
from limbeck.models.features import tapped
from limbeck.models.memory import keep_freed
from limbeck.models.parallel import Workers
from limbeck.models.precision import uses_bf16
from limbeck.params import LabelParams
from limbeck.prediction import predict
from limbeck.top_logits import CLASSES, LARGEST, REST, Kept, TopLogits, share_of_rest

LOGITS, FEATURES = "logits.npy", "features.npy"
PRIOR_SAMPLES = 4096
"""Validation samples whose mean answer says how the rest's mass is spread."""


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
    features_sha256: str | None = None
    top: int | None = None
    classes_sha256: str | None = None
    rest_sha256: str | None = None
    lost_nats: float | None = None


def num_values(num_classes: int, top: int | None) -> int:
    """How many numbers of 2 bytes a label takes: K logits, or `top` of them with the rest's mass and their classes."""
    if top is None:
        return num_classes
    return top + 1 + top * (1 if num_classes <= 1 << 16 else 2)


def required_mb(num_views: int, num_samples: int, num_values: int) -> float:
    """Size of what is stored: V x N x (numbers of a label and D features) x 2 bytes, in MB of 1,000,000."""
    return num_views * num_samples * num_values * 2 / 1e6


def num_features(teacher: nn.Module, x: NDArray[np.generic]) -> int:
    """D of a teacher, from one raw sample of x [N, ...]."""
    with torch.inference_mode(), tapped(teacher.eval()) as tap:
        teacher(torch.from_numpy(np.array(x[:1])))
    assert tap.features is not None
    return tap.features.shape[1]


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
    """Let the teacher answer every view and store its logits in fp16, view by view; its features too when asked.

    Raises:
        DataError: they would take more than `max_mb`, or are too large for fp16.

    """
    x, _ = read(data, "train")
    meta = read_meta(data)
    top = None if params.top is None or params.top + 1 >= len(meta.classes) else params.top
    widths = {LOGITS: len(meta.classes) if top is None else top + 1}
    widths |= {FEATURES: num_features(teacher, x)} if params.features else {}
    own = num_values(len(meta.classes), top)
    needed = required_mb(params.num_views, len(x), own + widths.get(FEATURES, 0))
    if needed > params.max_mb:
        per_sample = (
            f"{len(meta.classes)} classes" if top is None else f"{own} numbers for {top} of {len(meta.classes)} classes"
        )
        if params.features:
            per_sample = f"({per_sample} + {widths[FEATURES]} features)"
        raise DataError(
            f"soft labels need {params.num_views} views x {len(x)} samples x {per_sample} x 2 bytes = "
            f"{needed:.1f} MB; label.max_mb allows {params.max_mb:g}. Raise it, or lower label.num_views"
            + (
                f", or keep the largest logits alone (label.top: {min(64, len(meta.classes) // 4)})."
                if own > 1000
                else "."
            )
        )
    keep_freed()
    torch.set_num_threads(params.threads)
    # a tap sees one batch at a time
    workers = Workers(1, threads=params.threads) if params.features else Workers(params.threads)
    views = Views(x, bind(params.augment, AUGMENTS, "augmentation")(), seed)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, width in widths.items():
        shape = (params.num_views, len(x), width)
        stored[name] = np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.float16, shape=shape)
        reserve(folder / name)
    teacher.eval()
    kept = None
    if top is not None:
        shares_K = share_of_rest(predict(teacher, read(data, "validation")[0][:PRIOR_SAMPLES]))
        kept = Kept(folder, (params.num_views, len(x), top), shares_K)
    bf16 = uses_bf16(params.precision, torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        quick = _faster(teacher, views, params, workers)

        def answers(view: int, indices: Tensor) -> dict[str, Tensor]:
            model = quick if len(indices) == params.batch_size else teacher
            return _answers(model, views.get(view, indices), params.features)

        batches = torch.split(torch.arange(len(x)), params.batch_size)
        for view in range(params.num_views):
            for start in range(0, len(batches), workers.count):
                together = batches[start : start + workers.count]
                for indices, found in zip(together, workers.map(partial(answers, view), together), strict=True):
                    for name, values in found.items():
                        if name == LOGITS and kept is not None:
                            values = kept.take(view, indices.numpy(), values)
                        stored[name][view, indices.numpy()] = _as_fp16(values, name.removesuffix(".npy"))
            progress(view + 1, params.num_views, f"view {view + 1}/{params.num_views}")
    for array in stored.values():
        array.flush()
    stored.clear()
    label_meta = LabelMeta(
        augment=params.augment,
        num_views=params.num_views,
        seed=seed,
        data_digest=meta.digest,
        teacher_digest=teacher_digest,
        teacher_quality=teacher_quality,
        teacher_parameters=sum(parameter.numel() for parameter in teacher.parameters()),
        sha256=sha256(folder / LOGITS),
        features_sha256=sha256(folder / FEATURES) if params.features else None,
    )
    without = set() if params.features else {"features_sha256"}
    if kept is None:
        without |= {"top", "classes_sha256", "rest_sha256", "lost_nats"}
    else:
        lost_nats = kept.close()
        label_meta = label_meta.model_copy(
            update={
                "top": top, "classes_sha256": sha256(folder / CLASSES), "rest_sha256": sha256(folder / REST),
                "lost_nats": lost_nats,
            }
        )  # fmt: skip
    write_json(folder / "labels.json", label_meta.model_dump(mode="json", exclude=without))


def _faster(teacher: nn.Module, views: Views, params: LabelParams, workers: Workers) -> nn.Module:
    """The teacher, compiled for whole batches where that pays; taps on features do not see into a compiled one."""
    batch = views.get(0, torch.arange(min(params.batch_size, len(views))))
    if params.features or not pays(params.compile, teacher, batch[:1], params.num_views * len(views)):
        return teacher
    return compiled(teacher, lambda trial: workers.one_by_one(trial, [batch]), frozen=True)


def _answers(teacher: nn.Module, samples: Tensor, with_features: bool) -> dict[str, Tensor]:
    """What is stored of one batch, by file."""
    if not with_features:
        return {LOGITS: teacher(samples)}
    with tapped(teacher) as tap:
        logits_BK = teacher(samples)
    assert tap.features is not None
    return {LOGITS: logits_BK, FEATURES: tap.features}


def _as_fp16(answers: Tensor, what: str) -> NDArray[np.float16]:
    values: NDArray[np.float32] = answers.float().numpy()
    if not np.abs(values).max() <= LARGEST:
        raise DataError(
            f"the teacher's {what} reach {np.abs(values).max():.3g}; soft labels hold up to {LARGEST:,.0f}. "
            "A teacher that answers so is broken: look at its training, or its input normalization."
        )
    return values.astype(np.float16)


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


def read_views(
    data: Path, labels: Path, *, with_teacher: bool
) -> tuple[Views, NDArray[np.float16] | TopLogits | None, NDArray[np.float16] | None]:
    """The labelled views, the logits [V, N, K] made for them, and the features [V, N, D] where they were kept.

    Where the largest logits alone were kept, what is handed back fills in the others of the rows that are asked for.

    A student that must do without a teacher gets the same views in the same order, and None.

    Raises:
        DataError: logits or features changed, or were made for other data.
    """
    meta, label_meta = read_meta(data), read_labels_meta(labels)
    if label_meta.data_digest != meta.digest:
        raise DataError(
            f"{labels} was made for data {label_meta.data_digest[:16]}..., {data} is {meta.digest[:16]}...; "
            "run `dvc repro label`."
        )
    stored: list[NDArray[Any] | None] = []
    files = {
        LOGITS: label_meta.sha256, FEATURES: label_meta.features_sha256, CLASSES: label_meta.classes_sha256,
        REST: label_meta.rest_sha256,
    }  # fmt: skip
    for name, expected in files.items():
        path = labels / name
        if expected is not None and (not path.exists() or sha256(path) != expected):
            raise DataError(f"{path} has changed since it was made; `dvc checkout --force labels` restores it.")
        is_wanted = with_teacher and expected is not None
        stored.append(np.load(path, mmap_mode="r", allow_pickle=False) if is_wanted else None)
    x, _ = read(data, "train")
    views = Views(x, bind(label_meta.augment, AUGMENTS, "augmentation")(), label_meta.seed, label_meta.num_views)
    logits, features, classes, shares = stored
    if logits is not None and classes is not None and shares is not None:
        return views, TopLogits(logits, classes, shares), features
    return views, logits, features

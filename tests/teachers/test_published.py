"""The published CIFAR-10 ResNet-56 keeps its 93.39 %. Needs the files of docs/teachers.md below LIMBECK_DATA."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from limbeck.data.splits import Meta
from limbeck.params import WeightsTeacher
from limbeck.prediction import predict
from limbeck.teachers.outside import from_weights
from limbeck.teachers.weights import locate
from tests.pipeline.docs.test_teachers import BLOCKS

FOLDER = Path(os.environ.get("LIMBECK_DATA", "/nowhere"))
ARCHIVE, WEIGHTS = FOLDER / "cifar10-png.tar.gz", FOLDER / "resnet-cifar10" / "resnet56-4bfd9763.th"


def images() -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    from PIL import Image

    x, names = [], []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            *_, split, name, file = ("", "", *member.name.split("/"))
            if split == "test" and file.endswith(".png"):
                stream = archive.extractfile(member)
                assert stream is not None
                x.append(np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB")))
                names.append(name)
    classes = tuple(sorted(set(names)))
    return np.stack(x), np.array([classes.index(name) for name in names]), classes


@pytest.mark.slow
@pytest.mark.skipif(not (ARCHIVE.exists() and WEIGHTS.exists()), reason="LIMBECK_DATA holds no CIFAR-10 and ResNet-56")
def test_the_published_resnet_56_comes_out_at_its_93_39_percent() -> None:
    x, y, classes = images()
    section: dict[str, Any] = next(
        found["teacher"]
        for kind, _, text in BLOCKS
        if kind == "yaml" and (found := yaml.safe_load(text))["teacher"].get("match") == "order"
    )
    teacher = WeightsTeacher.model_validate(section)
    meta = Meta(
        name="cifar10", classes=classes, shape=(32, 32, 3), dtype="uint8", counts={}, mean=(0.0,), std=(1.0,), overlap=0, skipped=0, sha256={}, digest=""
    )  # fmt: skip
    brought = from_weights(teacher, meta, locate(teacher.file))
    assert (predict(brought.network, x).argmax(1) == y).mean() == pytest.approx(0.9339, abs=1e-4)

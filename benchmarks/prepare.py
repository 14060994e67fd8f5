"""Preparing ten times as many images: how memory and time grow, and what the cores gain. Each in its own process."""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.places import ROOT, timed

TIMES = 10
LIMITS = {"memory, small images": 1.10, "memory, photographs": 1.10}

PREPARE = """
import json, os, sys, time
from pathlib import Path
from limbeck.data import splits
from limbeck.data.sources.images import image_folder
from limbeck.edge.measure import peak_memory_mb
from limbeck.params import SplitParams

archive, out, size, cores, answer = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
began = time.perf_counter()
shares = SplitParams(test=0.2, validation=0.1, calibration=0.05)
splits.write(Path(out), image_folder(path=archive, size=int(size)), shares, 0, max_overlap=1)
Path(answer).write_text(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_memory_mb()}))
"""


def noise(generator: np.random.Generator) -> tuple[str, bytes]:
    """A PNG of 32x32 pixels that cannot be compressed."""
    stream = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
    return "png", stream.getvalue()


def photograph(generator: np.random.Generator) -> tuple[str, bytes]:
    """A JPEG of 1,600x1,200 pixels, smooth in places, about 0.5 MB."""
    stream = io.BytesIO()
    coarse = Image.fromarray(generator.integers(0, 256, (150, 200, 3), dtype=np.uint8))
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return "jpg", stream.getvalue()


def archive(place: Path, num: int, draw: Callable[[np.random.Generator], tuple[str, bytes]]) -> Path:
    """`num` images in two classes."""
    generator = np.random.default_rng(0)
    drawn: list[tuple[str, bytes]] = []
    with tarfile.open(place, "w:gz", compresslevel=1) as tar:
        for number in range(num):
            if draw is noise or number < 20:
                drawn = [*drawn[-19:], draw(generator)]
            suffix, content = drawn[-1] if draw is noise else drawn[number % 20]  # photographs take long to make
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return place


def prepared(place: Path, images: Path, size: int, cores: int) -> dict[str, float]:
    """Seconds and peak of a process that prepares an archive on so many cores."""
    answer = place / "answer.json"
    timed(ROOT, sys.executable, "-c", PREPARE, str(images), str(place / "out"), str(size), str(cores), str(answer))
    found: dict[str, float] = json.loads(answer.read_text())
    return found


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Prepare archives and others ten times as large; `params` has no part in it."""
    result: dict[str, Any] = {"seconds": {}, "peak_mb": {}, "bytes_per_image": {}, "ratios": {}, "limits": LIMITS}
    all_cores = 1 << 10
    for kind, draw, num, size in (("small images", noise, 2_000, 32), ("photographs", photograph, 40, 224)):
        small, large = (archive(place / f"{count}.tar.gz", count, draw) for count in (num, num * TIMES))
        few, many = (prepared(place, images, size, all_cores) for images in (small, large))
        alone = prepared(place, large, size, 1)
        for count, found in ((num, few), (num * TIMES, many)):
            result["seconds"][f"{count:,} {kind}"] = found["seconds"]
            result["peak_mb"][f"{count:,} {kind}"] = found["peak_mb"]
        result["seconds"][f"{num * TIMES:,} {kind}, one core"] = alone["seconds"]
        result["bytes_per_image"][kind] = (many["peak_mb"] - few["peak_mb"]) * 1e6 / (num * TIMES - num)
        result["ratios"][f"memory, {kind}"] = many["peak_mb"] / few["peak_mb"]
        result["ratios"][f"time, {kind}"] = many["seconds"] / few["seconds"]
        result["ratios"][f"one core over all, {kind}"] = alone["seconds"] / many["seconds"]
    return result

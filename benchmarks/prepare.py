"""Preparing ten times as much data: how memory and time grow. Each size in a process of its own."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.places import ROOT, timed

NUM, TIMES = 2_000, 10
LIMITS = {"memory": 1.10}

PREPARE = """
import json, sys, time
from pathlib import Path
from limbeck.data import splits
from limbeck.data.sources.images import image_folder
from limbeck.edge.measure import peak_memory_mb
from limbeck.params import SplitParams

archive, out, answer = map(Path, sys.argv[1:])
began = time.perf_counter()
shares = SplitParams(test=0.2, validation=0.1, calibration=0.05)
splits.write(out, image_folder(path=str(archive)), shares, 0, max_overlap=1)
answer.write_text(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_memory_mb()}))
"""


def archive(place: Path, num: int) -> Path:
    """`num` PNGs of noise, 32x32, in two classes: what decoding costs without a disk full of files."""
    generator = np.random.default_rng(0)
    with tarfile.open(place, "w:gz", compresslevel=1) as tar:
        for number in range(num):
            stream = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.png")
            member.size = stream.tell()
            stream.seek(0)
            tar.addfile(member, stream)
    return place


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Prepare an archive and one ten times as large; `params` has no part in it."""
    found = []
    for num in (NUM, NUM * TIMES):
        answer = place / f"{num}.json"
        images = archive(place / f"{num}.tar.gz", num)
        timed(ROOT, sys.executable, "-c", PREPARE, str(images), str(place / str(num)), str(answer))
        found.append(json.loads(answer.read_text()))
    small, large = found
    return {
        "seconds": {f"{NUM:,} images": small["seconds"], f"{NUM * TIMES:,} images": large["seconds"]},
        "peak_mb": {f"{NUM:,} images": small["peak_mb"], f"{NUM * TIMES:,} images": large["peak_mb"]},
        "ratios": {"memory": large["peak_mb"] / small["peak_mb"], "time": large["seconds"] / small["seconds"]},
        "limits": LIMITS,
    }

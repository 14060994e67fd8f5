"""The recipe `recommend` beside what a user would do instead, on the same made interactions.

Popularity, neighbours of items, what followed the last item, ONNX Runtime's dynamic quantization of the teacher, and the
student without a teacher. HR@10 and NDCG@10 over the whole catalogue, on each user's last interaction. Times are of
interleaved rounds, one thread, batch 1. Neighbours are one thread of numpy over a dense table, and not timed. Needs the
workspace of `recipes/recommend.yaml`, finished.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.places import ROOT
from limbeck import params as params_file
from limbeck.data.splits import read, read_meta
from limbeck.edge import measure as edge
from limbeck.evaluation import estimate, paired_difference, scorer
from limbeck.export import run, to_onnx
from limbeck.models import load
from limbeck.prediction import predict

WORKSPACE = ROOT / "work/recommend"
LIMITS: dict[str, float] = {}
ON_PHONE = "models/phone"


def neighbours(data: Path) -> dict[str, NDArray[np.float64]]:
    """Tables that say how often items go together: popularity [K], cosine of co-occurrence [K, K], successors [K, K]."""
    x, y = read(data, "train")
    num = len(read_meta(data).classes)
    together, follows = np.zeros((num, num)), np.zeros((num, num))
    for codes, label in zip(np.asarray(x), np.asarray(y), strict=True):
        items = codes[codes > 0] - 1
        together[np.unique(items), label] += 1
        if len(items):
            follows[items[-1], label] += 1
    popularity = np.bincount(y, minlength=num).astype(np.float64)
    both = together + together.T
    norms = np.sqrt(np.maximum(both.sum(1), 1))
    return {"popularity": popularity, "item-kNN": both / norms[:, None] / norms, "last item's successors": follows}


def answers(tables: dict[str, NDArray[np.float64]], x: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Scores [N, K] of each of them; popularity says what stands first among equals."""
    popularity = tables["popularity"]
    hint = popularity / (1 + popularity.sum())
    has_item = np.zeros((len(x), len(popularity) + 1))
    np.put_along_axis(has_item, x.astype(np.int64), 1.0, axis=1)
    last = np.concatenate([np.zeros((1, len(popularity))), tables["last item's successors"]])
    return {
        "popularity": np.tile(popularity, (len(x), 1)),
        "item-kNN": has_item[:, 1:] @ tables["item-kNN"] + 1e-6 * hint,
        "last item's successors": last[x[:, -1]] + hint,
    }


def dynamic(teacher: Path, place: Path) -> Path:
    """The teacher as ONNX Runtime's `quantize_dynamic` leaves it, called without settings.

    It calls what it makes by the names of nodes, which our files do without: they get some first. And it transposes the
    weights of the last layer where they lie, which breaks what else reads them: the rows that are looked up get a table of
    their own, as a user would have to give them (onnxruntime 1.31).
    """
    import logging

    from onnxruntime.quantization import quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises on preprocessing
    named, path = place / "teacher.named.onnx", place / "teacher.dynamic.onnx"
    model = onnx.load(teacher)
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
        if node.op_type == "Gather" and node.input[0] in tables:
            own = onnx.TensorProto()
            own.CopyFrom(tables[node.input[0]])
            own.name = node.input[0] = f"{own.name}.looked_up"
            model.graph.initializer.append(own)
    onnx.save(model, named)
    quantize_dynamic(named, path)
    return path


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Ask and time every file of the finished workspace; other params than the default's mean fewer rounds."""
    if not (WORKSPACE / "registry/phone.json").exists():
        raise SystemExit(f"recommend: {WORKSPACE} holds no finished run. Next: make run RECIPE=recommend")
    exported, data, how = WORKSPACE / "export/phone", WORKSPACE / "data", params_file.load(params).measure.model_dump()
    x, y = (np.asarray(part) for part in read(data, "test"))
    spec, control = load(WORKSPACE / ON_PHONE / "control")
    to_onnx(place / "control.onnx", control, spec, 18, {})
    files = {
        "teacher": exported / "teacher.onnx", "teacher, quantize_dynamic": dynamic(exported / "teacher.onnx", place),
        "student, float": exported / "model.fp32.onnx", "student, int8": exported / "model.int8.onnx",
    }  # fmt: skip
    tables = neighbours(data)
    logits: dict[str, NDArray[Any]] = answers(tables, x)
    logits |= {name: run(path, x) for name, path in files.items()}
    logits["student without a teacher, float"] = predict(control, x)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    sizes |= {name: 4 * table.size for name, table in tables.items()}
    sizes["student without a teacher, float"] = (place / "control.onnx").stat().st_size
    timed = edge.measure(files, threads=1, batch_size=1, **how)
    hits = {name: scorer("hr@10")(said, y) for name, said in logits.items()}
    gains = {name: scorer("ndcg@10")(said, y) for name, said in logits.items()}
    shipped = "student, int8"
    return {
        "seconds": {},
        "ratios": {
            "teacher over student, bytes": sizes["teacher"] / sizes[shipped],
            "student over teacher, HR@10": hits[shipped].mean() / hits["teacher"].mean(),
            "student over teacher, NDCG@10": gains[shipped].mean() / gains["teacher"].mean(),
        },
        "limits": LIMITS,
        "niceness": os.nice(0),
        "load": os.getloadavg()[0],
        "data": "made (limbeck/data/sources/shop.py)",
        "users": len(y),
        "items": len(spec.classes),
        "hr@10": {name: estimate(scores, how["bootstrap"], how["seed"]) for name, scores in hits.items()},
        "ndcg@10": {name: estimate(scores, how["bootstrap"], how["seed"]) for name, scores in gains.items()},
        "drop": {
            "hr@10": paired_difference(hits["teacher"], hits[shipped], how["bootstrap"], how["seed"]),
            "ndcg@10": paired_difference(gains["teacher"], gains[shipped], how["bootstrap"], how["seed"]),
        },
        "bytes": sizes,
        "p50_ms": {name: row["p50_ms"]["value"] for name, row in timed["variants"].items()},
    }


def table(result: dict[str, Any]) -> str:
    """The rows of docs/recommend.md."""
    lines = []
    for name, hit in result["hr@10"].items():
        gain, p50_ms = result["ndcg@10"][name]["value"], result["p50_ms"].get(name)
        lines.append(
            f"| {name} | {100 * hit['value']:.1f} [{100 * hit['low']:.1f}, {100 * hit['high']:.1f}] | {100 * gain:.1f} | "
            f"{result['bytes'][name]:,} | {'-' if p50_ms is None else f'{p50_ms:.3f}'} |"
        )
    return "\n".join(lines)

"""A policy that ships beside what one would do instead: quantize the teacher, or clone its actions without a teacher.

The teacher, ONNX Runtime's dynamic quantization of it, the twin that learned from the expert's actions alone (the control of
`distill`), and what the recipe made. All play the same episodes of the test split through ONNX Runtime; times are of
interleaved rounds, one thread. Needs the workspace of `recipes/policy.yaml`, finished.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from benchmarks.places import ROOT
from limbeck import models
from limbeck import params as params_file
from limbeck.data.prepared import read_meta
from limbeck.edge import measure as edge
from limbeck.evaluation import Scorer, estimate, paired_difference
from limbeck.export import to_onnx

RECIPE = ROOT / "recipes/policy.yaml"
WORKSPACE = ROOT / "work/policy"
TARGET = "controller"
TEACHER, DYNAMIC, CLONED, DISTILLED, PRUNED, INT8 = (
    *("teacher, fp32", "teacher, ONNX Runtime dynamic int8", "student, cloned without a teacher, fp32"),
    *("student, distilled, fp32", "the same, pruned, fp32", "the same, int8"),
)
LIMITS = {"bytes of what ships over the teacher's": 0.1, "metric lost by what ships": 0.02}


def files_of(place: Path, workspace: Path) -> dict[str, Path]:
    """Every file by what it is; those that the pipeline has no use for are made here."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exported = workspace / "export" / TARGET
    opset = params_file.load(workspace / "params.yaml").targets[TARGET].export.opset
    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess, which changes nothing here
    quantize_dynamic(exported / "teacher.onnx", place / "dynamic.onnx", weight_type=QuantType.QInt8)
    spec, network = models.load(workspace / "models" / TARGET / "control")
    to_onnx(place / "cloned.onnx", network, spec, opset, {})
    return {
        TEACHER: exported / "teacher.onnx", DYNAMIC: place / "dynamic.onnx", CLONED: place / "cloned.onnx",
        DISTILLED: exported / "student.onnx", PRUNED: exported / "model.fp32.onnx", INT8: exported / "model.int8.onnx",
    }  # fmt: skip


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Play and time every file of the finished workspace; other params than the default's mean fewer rounds."""
    if not (WORKSPACE / "registry" / f"{TARGET}.json").exists():
        raise SystemExit(f"policy: {WORKSPACE} holds no finished run. Next: make run RECIPE=policy")
    place = place / "policy"
    place.mkdir()
    files = files_of(place, WORKSPACE)
    values, how = params_file.load(WORKSPACE / "params.yaml"), params_file.load(params).measure
    score, world = Scorer(values.metric, WORKSPACE / "data"), read_meta(WORKSPACE / "data").world
    assert world is not None
    rows: dict[str, Any] = {}
    scores = {}
    for name, file in files.items():
        with edge.answering(file, threads=1, batch_size=512) as answers:
            scores[name] = score(answers, "test")
        share = estimate(scores[name], how.bootstrap, how.seed)
        lost = paired_difference(scores[TEACHER], scores[name], how.bootstrap, how.seed)
        mean = world.floor + share["value"] * (world.goal - world.floor)
        rows[name] = {"return": mean, "share": share, "lost": lost, "bytes": file.stat().st_size}
    timed = edge.measure({"teacher" if name == TEACHER else name: file for name, file in files.items()}, threads=1,
                         batch_size=1, **how.model_dump())  # fmt: skip
    for name, row in rows.items():
        row["p50_us"] = 1000 * timed["variants"]["teacher" if name == TEACHER else name]["p50_ms"]["value"]
    ships = {"model.fp32": PRUNED, "model.int8": INT8}[
        json.loads((WORKSPACE / "registry" / f"{TARGET}.json").read_text(encoding="utf-8"))["variant"]
    ]
    return {
        "niceness": os.nice(0), "load": os.getloadavg()[0], "seconds": {},
        "episodes": len(scores[TEACHER]), "world": world.model_dump(mode="json"), "ships": ships, "files": rows,
        "ratios": {
            "bytes of what ships over the teacher's": rows[ships]["bytes"] / rows[TEACHER]["bytes"],
            "metric lost by what ships": rows[ships]["lost"]["value"] / rows[TEACHER]["share"]["value"],
        },
        "limits": LIMITS,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The rows of docs/decisions.md."""
    lines = [
        "| file | mean return | share of the way | lost to the teacher, points | bytes | p50, µs |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["files"].items():
        share, lost = row["share"], row["lost"]
        told = (
            "" if name == TEACHER else f"{100 * lost['value']:.1f} [{100 * lost['low']:.1f}, {100 * lost['high']:.1f}]"
        )
        bold = "**" if name == result["ships"] else ""
        lines.append(
            f"| {bold}{name}{bold} | {row['return']:.1f} | {share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}] | "
            f"{told} | {row['bytes']:,} | {row['p50_us']:.0f} |"
        )
    return "\n".join(lines)

"""Lineage: what a version is, what it was made from and what it measured, all of it content."""

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from limbeck.params import ContractParams
from limbeck.selection import Decision
from limbeck.tracking.server import ROOT


def lineage(lock: Mapping[str, Any], stage: str) -> str:
    """Digest over the dvc.lock entries of a stage and its ancestors: commands, deps, params and outs by content.

    `none` when the stage is not in the lock.
    """
    entries: Mapping[str, Any] = lock.get("stages") or {}
    owner = {out["path"]: name for name, entry in entries.items() for out in entry.get("outs", [])}
    waiting, seen = [stage] if stage in entries else [], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for dep in entries[name].get("deps", []):
            # A dep may be an out, or lie inside one.
            waiting += [owner[place] for place in owner if dep["path"] == place or dep["path"].startswith(f"{place}/")]
    if not seen:
        return "none"
    text = json.dumps({name: entries[name] for name in sorted(seen)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def git_state(folder: Path = ROOT) -> tuple[str, str]:
    """HEAD (`none` without a commit) and whether code or values differ from it (`true` or `false`).

    dvc.lock and metrics/ are what the run itself writes; they make nothing dirty.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        head = git("rev-parse", "--verify", "HEAD")
        changed = git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock", ":(exclude)metrics")
    except (OSError, subprocess.SubprocessError):
        return "none", "true"
    return head, "true" if changed else "false"


def tags_of(
    decision: Decision,
    manifest: Mapping[str, Any],
    quality: Mapping[str, Any],
    latency: Mapping[str, Any],
    *,
    contract: ContractParams,
    instructions: str,
    lock: Path = Path("dvc.lock"),
) -> dict[str, str]:
    """A version's lineage, all of it content: what it is, what it was made from, what was asked of it and measured.

    `limbeck.contract` and `limbeck.measured` are JSON, for the manifest that devices get.
    """
    read: Mapping[str, Any] = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    head, dirty = git_state()
    test = quality["variants"][decision.variant]["test"]
    metric = re.sub(r"[^\w./ :-]", "_", quality["metric"])  # MLflow takes no @ in a key: hr@10 becomes hr_10
    speed = latency["variants"][decision.variant]
    return {
        "limbeck.identity": decision.identity,
        "limbeck.sha256": manifest["files"][f"{decision.variant}.onnx"]["sha256"],
        "limbeck.variant": decision.variant,
        "limbeck.target": decision.target,
        "limbeck.data": manifest["data_digest"],
        "limbeck.teacher": manifest["teacher_digest"],
        "limbeck.lineage": lineage(read, f"export@{decision.target}"),
        "limbeck.git": head,
        "limbeck.dirty": dirty,
        "limbeck.verdict": decision.verdict,
        f"limbeck.{metric}": f"{test['value']:.4f} [{test['low']:.4f}, {test['high']:.4f}]",
        "limbeck.bytes": str(speed["bytes"]),
        "limbeck.p50_ms": f"{speed['p50_ms']['value']:.4f}",
        "limbeck.contract": json.dumps(contract.model_dump()),
        "limbeck.measured": json.dumps(_measured(quality, test, latency, speed) | {"instructions": instructions}),
    }


def _measured(
    quality: Mapping[str, Any], test: Mapping[str, Any], latency: Mapping[str, Any], speed: Mapping[str, Any]
) -> dict[str, Any]:
    """The shipped file's figures, with the machine they were made on."""
    interval = ("value", "low", "high")
    return {
        "quality": {"metric": quality["metric"], "split": "test", **{key: test[key] for key in interval}},
        "p50_ms": {key: speed["p50_ms"][key] for key in interval},
        "p95_ms": {key: speed["p95_ms"][key] for key in interval},
        "peak_memory_mb": speed["peak_memory_mb"],
        "bytes": speed["bytes"],
        "threads": latency["threads"],
        "batch_size": latency["batch_size"],
        "machine": latency["machine"],
    }

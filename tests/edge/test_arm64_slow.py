"""An ARM64 device that QEMU plays in user mode: the agent runs there, and bundles give the answers they gave here.

Correctness alone; an emulated processor tells nothing of speed. docs/device.md says how to build the root file system.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck import models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge.bundle import INT8_STEPS
from limbeck.export import run, to_onnx
from tests.conftest import ROOT
from tests.edge.delivery import INPUTS, ArtifactServer, Publisher

QEMU = os.environ.get("LIMBECK_QEMU_ARM64") or shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
DEBIAN = os.environ.get("LIMBECK_ARM64_ROOT")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (QEMU and DEBIAN), reason="no QEMU or no LIMBECK_ARM64_ROOT; see docs/device.md, ARM64"),
]

NETWORK = Component.model_validate({"use": "convnet", "width": 16, "depth": 2})
SPEC = Spec(model=NETWORK, shape=(8, 8, 1), dtype="uint8", classes=tuple("0123456789"), mean=(128.0,), std=(64.0,))
SAMPLES = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, unpacked: what pip puts beside its requirements."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    (wheel,) = folder.glob("limbeck-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


Arm = Callable[..., str]


@pytest.fixture
def arm(site: Path, tmp_path: Path) -> Arm:
    """Runs the device's Python with some arguments and returns what it printed."""
    python = tmp_path / "python"  # also what the agent starts its own processes with
    python.write_text(f'#!/bin/sh\nexec "{QEMU}" -cpu max -L "{DEBIAN}" -0 "$0" "{DEBIAN}/usr/bin/python3" "$@"\n')
    python.chmod(0o755)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONHOME": "/usr",
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run([python, *arguments], env=variables, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network as the pipeline exports it: float, and int8 with either arithmetic."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = models.build(SPEC).train()
    with torch.no_grad():
        network(torch.from_numpy(SAMPLES))
    network.eval()
    found = {"fp32": folder / "fp32.onnx"}
    to_onnx(found["fp32"], network, SPEC, 18, {})
    for arithmetic in ("u8s7", "s8s8"):
        described = quantization.describe("static", arithmetic, Component.model_validate({"use": "min_max"}))
        prepared = quantization.prepare(network, described, SPEC.shape, torch.uint8)
        quantization.calibrate_(prepared, SAMPLES, 16)
        found[arithmetic] = folder / f"{arithmetic}.onnx"
        spec = SPEC.model_copy(update={"quantization": described})
        to_onnx(found[arithmetic], quantization.convert(prepared), spec, 18, {})
    return found


def test_bundles_prove_themselves_and_answer_on_arm64_as_they_did_here(
    arm: Arm, exported: dict[str, Path], publisher: Publisher, server: ArtifactServer, tmp_path: Path
) -> None:
    assert arm("-c", "import platform; print(platform.machine())") == "aarch64\n"
    publisher.provision(tmp_path / "provisioned", server.address)
    np.save(tmp_path / "samples.npy", SAMPLES)
    edge = ("-m", "limbeck.edge.cli")
    arm(*edge, "init", "provisioned", "--home", "home")
    stick = ("--from", str(publisher.folder))
    for serial, (kind, source, needs) in enumerate(
        [("fp32", (), "any"), ("u8s7", stick, "any"), ("s8s8", (), "dotprod")], start=1
    ):
        stem = "model.fp32" if kind == "fp32" else "model.int8"
        answers = run(exported[kind], INPUTS)
        publisher.publish(serial, file=exported[kind], stem=stem, answers=answers, instructions=needs)
        assert f"serial {serial} serves, on probation" in arm(*edge, "update", *source, "--home", "home")
        told = arm(*edge, "predict", "samples.npy", "--logits", "logits.npy", "--home", "home")
        here = run(exported[kind], SAMPLES)
        there = np.load(tmp_path / "logits.npy")
        assert {json.loads(line)["serial"] for line in told.splitlines()} == {serial}
        assert np.array_equal(there.argmax(1), here.argmax(1)), kind
        allowed = 0.001 if kind == "fp32" else INT8_STEPS * 2 / 255
        assert np.abs(there - here).max() <= allowed * np.abs(here).max(), kind
    publisher.publish(4, instructions="avx2")
    assert "needs the processor's avx2" in arm(*edge, "update", "--home", "home", code=2)
    status = json.loads(arm(*edge, "status", "--json", "--home", "home"))
    assert status["current"].startswith("3-")
    assert status["refused"] == {}


def test_wrong_golden_answers_are_refused_there_too(arm: Arm, publisher: Publisher, tmp_path: Path) -> None:
    publisher.provision(tmp_path / "provisioned", "http://127.0.0.1:9")
    edge = ("-m", "limbeck.edge.cli")
    arm(*edge, "init", "provisioned", "--home", "home")
    publisher.publish(1, golden_factor=1.5)
    said = arm(*edge, "update", "--from", str(publisher.folder), "--home", "home")
    assert "does not give the golden answers here" in said
    assert json.loads(arm(*edge, "status", "--json", "--home", "home"))["current"] is None

"""What the tests of MLflow share: small real exports, and the steps of registering them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck.edge import golden
from limbeck.edge import manifest as manifest_file
from limbeck.edge.measure import open_session
from limbeck.params import MeasureParams
from limbeck.recording import Report
from limbeck.tracking import promotion, registry
from limbeck.tracking.promotion import Promotion
from limbeck.tracking.registry import Version
from limbeck.tracking.runs import Replayer
from limbeck.tracking.server import open_client


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A socket that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


EXPERIMENT = "limbeck"


MODEL = "digits-phone"


MEASURE = MeasureParams(warmup_runs=1, rounds=3, runs_per_round=1, bootstrap=100, seed=0)


def begun(stage: str = "distill@phone") -> Report:
    report = Report(stage)
    report.begin({"seed": 3, "train": {"lr": 0.1}}, "key")
    return report


def runs(uri: str, **tags: str) -> list[Any]:
    client = open_client(uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return []
    asked = " and ".join(f"tags.`limbeck.{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([found.experiment_id], asked))


def replayer(uri: str, group: str = "run-1") -> Replayer:
    return Replayer(Path(".limbeck/spool"), uri=uri, experiment=EXPERIMENT, group=group)


def forget_the_process(report: Report) -> None:
    """Let a spool file look as if its process had been killed."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    report.spool.rename(report.spool.with_name(f"{report.spool.stem.rsplit('-', 1)[0]}-{gone.pid}.jsonl"))


def write_export(folder: Path, weight: float, classes: int = 4, height: int = 1, width: int = 0) -> dict[str, Any]:
    """Real ONNX files on [batch, height, width, 1] that answer with the brightest of the first pixels, plus noise."""
    folder.mkdir(parents=True, exist_ok=True)
    width = width or classes
    table = np.eye(height * width, classes, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal(table.shape).astype(np.float32)
    network = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "network",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", height, width, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(table + weight * noise, "w")],
    )
    model = helper.make_model(network, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for variant in ("teacher", "model.fp32", "model.int8"):
        onnx.save(model, str(folder / f"{variant}.onnx"))
    inputs = np.random.default_rng(0).integers(0, 17, (8, height, width, 1), dtype=np.uint8)
    answer = open_session(folder / "model.int8.onnx", 1).run(None, {"input": inputs})[0]
    golden.write(folder / "golden.npz", inputs, {"model.fp32": answer, "model.int8": answer})
    manifest_file.write(
        folder,
        name="digits",
        target="phone",
        classes=[str(i) for i in range(classes)],
        input={"name": "input", "shape": ["batch", height, width, 1], "dtype": "uint8"},
        output={"name": "logits", "shape": ["batch", classes], "dtype": "float32"},
        opset=18,
        tolerance={"max_difference": 1e-3, "min_equal": 0.99},
        data_digest="d" * 64,
        teacher_digest="e" * 64,
    )
    return manifest_file.read(folder)


def samples(classes: int, count: int) -> tuple[Any, Any]:
    labels = np.arange(count) % classes
    return (np.eye(classes, dtype=np.uint8)[labels] * 9).reshape(count, 1, classes, 1), labels


def register(
    uri: str,
    exported: Path,
    manifest: dict[str, Any],
    variant: str = "model.int8",
    model: str = MODEL,
    tags: dict[str, str] | None = None,
) -> Version:
    report = begun("register@phone")
    version = registry.register(
        model,
        exported,
        manifest,
        variant,
        tags={
            "limbeck.identity": manifest_file.identity(exported),
            "limbeck.variant": variant,
            "limbeck.sha256": manifest["files"][f"{variant}.onnx"]["sha256"],
            **(tags or {}),
        },
        report=report,
        uri=uri,
        experiment=EXPERIMENT,
    )
    report.done({})
    return version


def promote(
    uri: str, version: Version, exported: Path, manifest: dict[str, Any], score: Any = None, margin: float = 0.01
) -> Promotion:
    x, y = samples(4, 16)

    def scores_of(file: Path) -> Any:
        logits = open_session(file, 1).run(None, {"input": x})[0]
        return (logits.argmax(1) == y).astype(np.float64)

    return promotion.promote(
        version,
        exported / "model.int8.onnx",
        manifest,
        scores_of=score or scores_of,
        measure=MEASURE,
        margin=margin,
        uri=uri,
        ledger_file=Path("ledger.jsonl"),
    )


def aliases(uri: str) -> dict[str, str]:
    return {alias: str(number) for alias, number in open_client(uri).get_registered_model(MODEL).aliases.items()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """MLflow and the libraries below it warn about one another."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for category in ("DeprecationWarning", "FutureWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))

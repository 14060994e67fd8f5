"""A publisher made of python-tuf alone, and a small real server, as devices meet them."""

import contextlib
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from limbeck.edge import golden
from limbeck.edge.fetch import Patience
from limbeck.edge.home import Home, init
from limbeck.edge.measure import open_session

MODEL = "digits-phone"
ROLES = ("root", "timestamp", "snapshot", "targets")
INPUTS = np.random.default_rng(7).integers(1, 256, (4, 8, 8, 1), dtype=np.uint8)
QUICK = Patience(
    connect_s=2, read_s=1, headers_s=1, grace_s=0.5, min_bytes_per_s=2000, attempts=3, base_s=0.01, most_s=0.3
)
SETTINGS = {"window_s": 0, "min_answers": 3}

GRAPH = """
<ir_version: 9, opset_import: ["": 18]>
tiny (uint8[batch,8,8,1] input) => (float[batch,10] logits) <float[64,10] weights> {{
  x = Cast<to=1>(input)
  flat = Flatten(x)
  sum = ReduceSum<keepdims=0>(x)
  plain = MatMul(flat, weights)
  {body}
}}
"""
PLAIN = "logits = Identity(plain)"
NAN_ON_BLACK = "log = Log(sum) zero = Constant<value_float=0.0>() odd = Mul(log, zero) logits = Add(plain, odd)"
RAISES_ON_BLACK = """
  zero = Constant<value_float=0.0>() black = Equal(sum, zero) index = Cast<to=7>(black)
  one = Constant<value_ints=[1]>() nothing = Unsqueeze(zero, Axes) picked = Gather(nothing, index) logits = Add(plain, picked)
"""
LOOPS = """
  times = Constant<value_int={times}>() go = Constant<value=bool {{1}}>()
  logits = Loop(times, go, plain)<body = once (int64 i, bool on, float[batch,10] a) => (bool on_, float[batch,10] b)
    {{ on_ = Identity(on) b = Identity(a) }}>
"""


def write_model(path: Path, body: str = PLAIN, *, scale: float = 1.0) -> None:
    """`input` uint8 [batch, 8, 8, 1] -> `logits` float32 [batch, 10]: a fixed matrix times `scale`, then `body`."""
    model = onnx.parser.parse_model(GRAPH.format(body=body.replace("Axes", "axes")))
    weights = (np.random.default_rng(0).standard_normal((64, 10)) * scale / 100).astype(np.float32)
    del model.graph.value_info[:]
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
    onnx.save(model, path)


class Publisher:
    """The publishing side: keys in memory, metadata and artifacts in a folder that is a stick, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "metadata").mkdir(parents=True)
        (folder / "artifacts").mkdir()
        self.keys = {role: CryptoSigner.generate_ed25519() for role in ROLES}
        later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self.signed: dict[str, Any] = {
            "root": Root(expires=later, consistent_snapshot=True),
            "timestamp": Timestamp(expires=later),
            "snapshot": Snapshot(expires=later),
            "targets": Targets(expires=later),
        }
        for role in ROLES:
            self.signed["root"].add_key(self.keys[role].public_key, role)
        self.write_root()
        self.bundles: dict[int, Path] = {}
        self.sign()

    def write_root(self) -> None:
        root = Metadata(self.signed["root"])
        root.sign(self.keys["root"])
        root.to_file(str(self.folder / "metadata" / f"{root.signed.version}.root.json"), JSONSerializer())

    def sign(self, expires: timedelta = timedelta(days=7)) -> None:
        """Write the next versions of targets, snapshot and timestamp."""
        self.signed["timestamp"].expires = datetime.now(UTC).replace(microsecond=0) + expires
        for role in ("targets", "snapshot", "timestamp"):
            signed = self.signed[role]
            signed.version += 1
            name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
            metadata = Metadata(signed)
            metadata.sign(self.keys[role])
            metadata.to_file(str(self.folder / "metadata" / name), JSONSerializer())
            if role == "targets":
                self.signed["snapshot"].meta["targets.json"].version = signed.version
            if role == "snapshot":
                self.signed["timestamp"].snapshot_meta.version = signed.version

    def make(
        self,
        serial: int,
        body: str = PLAIN,
        *,
        file: Path | None = None,
        answers: NDArray[np.float32] | None = None,
        stem: str = "model.int8",
        padding: int = 0,
        golden_factor: float = 1.0,
        **changed: Any,
    ) -> Path:
        """A bundle's folder; `changed` keys replace the manifest's.

        Its logits are `serial` times those of serial 1, or those of `file`, which takes and gives the same shapes;
        `answers` to INPUTS stand in the golden file instead of those it gives here.
        """
        folder = self.folder / "artifacts" / "5" / f"run{serial}" / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        place = folder / f"{stem}.onnx"
        if file is None:
            write_model(place, body, scale=serial)
        else:
            shutil.copy(file, place)
        logits = open_session(place, 1).run(None, {"input": INPUTS})[0] if answers is None else answers
        golden.write(folder / "golden.npz", INPUTS, {stem: logits * np.float32(golden_factor)})
        if padding:
            (folder / "padding.bin").write_bytes(np.random.default_rng(serial).bytes(padding))
        manifest = {
            "format": 2,
            "name": MODEL,
            "serial": serial,
            "variant": stem,
            "input": {"name": "input", "shape": ["batch", 8, 8, 1], "dtype": "uint8"},
            "classes": [f"digit {k}" for k in range(10)],
            "tolerance": {"max_difference": 0.001, "min_equal": 0.99},
            "contract": {"max_p95_ms": 5000.0, "max_size_kb": 100},
            "measured": {"threads": 1, "batch_size": 1, "p95_ms": 0.1},
            "runtime": {"onnxruntime": ">=1.20"},
            "opset": 18,
            "instructions": "any",
            "minimum_agent": "0.1.0",
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                for path in sorted(folder.iterdir())
            },
            **changed,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        self.bundles[serial] = folder
        return folder

    def seal(self, serial: int) -> None:
        """Describe the files of a bundle anew, after some were changed or added."""
        folder = self.bundles[serial]
        described = json.loads((folder / "manifest.json").read_text())
        described["files"] = {
            path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
            if path.name != "manifest.json"
        }
        (folder / "manifest.json").write_text(json.dumps(described))

    def serve(self, serial: int, alias: str = "champion", **custom: Any) -> None:
        """Have the signed targets name a bundle."""
        name, folder = f"{MODEL}/{alias}", self.bundles[serial]
        target = TargetFile.from_file(name, str(folder / "manifest.json"))
        artifacts = folder.relative_to(self.folder / "artifacts").as_posix()
        target.unrecognized_fields["custom"] = {"serial": serial, "artifacts": artifacts, **custom}
        self.signed["targets"].targets[name] = target
        self.sign()

    def publish(self, serial: int, body: str = PLAIN, **options: Any) -> str:
        """Make and serve a champion; its key."""
        folder = self.make(serial, body, **options)
        self.serve(serial)
        return key_of(folder)

    def provision(self, out: Path, server: str, **more: Any) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        described = {"server": server, "metadata": "7/tuf", "model": MODEL, "reports": "9/reports", **more}
        (out / "device.json").write_text(json.dumps(described))
        shutil.copy(self.folder / "metadata" / "1.root.json", out / "root.json")
        return out


def key_of(folder: Path) -> str:
    content = (folder / "manifest.json").read_bytes()
    return f"{json.loads(content)['serial']}-{hashlib.sha256(content).hexdigest()[:16]}"


Fault = Callable[["_Handler", str, bytes], bool]
"""Answers in the server's place and returns True, or lets it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ArtifactServer"

    def log_message(self, *_: Any) -> None:
        pass

    def _place(self) -> str:
        return self.path.removeprefix("/api/2.0/mlflow-artifacts/artifacts/")

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        place, wanted = self._place(), self.headers.get("Range")
        self.server.seen.append((place, wanted))
        metadata = place.startswith("7/tuf/")
        file = self.server.folder / ("metadata" if metadata else "artifacts") / place.removeprefix("7/tuf/")
        content = file.read_bytes() if file.is_file() else None
        with contextlib.suppress(ConnectionError):
            for fault in self.server.faults:
                if fault(self, place, content or b""):
                    return
            if content is None:
                self.answer(404)
            elif wanted:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.answer(206, content[start:], Content_Range=span)
            else:
                self.answer(200, content)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with contextlib.suppress(ConnectionError):
            for fault in self.server.faults:
                if fault(self, self._place(), content):
                    return
            self.server.uploads[self._place()] = content
            self.answer(200)


class ArtifactServer(ThreadingHTTPServer):
    """MLflow's artifact routes over a publisher's folder, with faults on order."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str | None]] = []
        self.uploads: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ArtifactServer]:
    with ArtifactServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def provisioned(publisher: Publisher, place: Path, server: str = "http://127.0.0.1:9", **settings: Any) -> Home:
    """A device's state folder."""
    return init(publisher.provision(place / "provisioned", server, settings={**SETTINGS, **settings}), place / "home")

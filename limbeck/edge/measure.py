"""Latency, cold start and memory of ONNX files, each in a process of its own, taking turns.

A child opens one file and answers commands, a JSON line each way; it ends when its standard input does, so
that none outlives whoever asked. Rounds of all files alternate in a shuffled order: what disturbs the machine
for a second disturbs all of them. Only numpy and onnxruntime are needed.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError
from limbeck.edge.manifest import sha256

QUANTILES = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95, "p99_ms": 99}
NUM_COLD_STARTS = 3
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


def machine() -> dict[str, Any]:
    """What figures were made on: system, processor and its instruction sets, runtime."""
    import onnxruntime

    cpu, flags = platform.processor(), set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
            if key.strip() in ("flags", "Features"):
                flags = set(value.split())
    return {
        "system": platform.system(),
        "arch": platform.machine(),
        "cpu": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MB of 1,000,000 bytes.

    Linux's ru_maxrss carries the parent's peak over exec; VmHWM belongs to this program alone.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def open_session(path: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU; waiting threads sleep, so that they do not disturb the next file's turn."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _example(session: Any, batch_size: int) -> dict[str, NDArray[Any]]:
    """Fixed random raw input for a session."""
    described = session.get_inputs()[0]
    shape = [batch_size, *(int(size) for size in described.shape[1:])]
    generator = np.random.default_rng(0)
    if described.type == "tensor(uint8)":
        return {described.name: generator.integers(0, 256, shape, dtype=np.uint8)}
    return {described.name: generator.standard_normal(shape, dtype=np.float32)}


def _child(path: Path | None, threads: int, batch_size: int) -> None:
    """Answer commands until standard input ends. Without a file: import the runtime, tell the memory of that."""
    import onnxruntime  # noqa: F401  (its memory is what a file's is counted above)

    session, feed, cold_ms = None, {}, 0.0
    if path is not None:
        started = time.perf_counter_ns()
        session = open_session(path, threads)
        feed = _example(session, batch_size)
        session.run(None, feed)
        cold_ms = (time.perf_counter_ns() - started) / 1e6
    print(json.dumps({"cold_start_ms": cold_ms}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if "runs" in command:
            assert session is not None
            times = []
            for _ in range(command["runs"]):
                started = time.perf_counter_ns()
                session.run(None, feed)
                times.append((time.perf_counter_ns() - started) / 1e6)
            answer["ms"] = times
        elif "predict" in command:
            assert session is not None
            x = np.load(command["predict"], mmap_mode="r", allow_pickle=False)
            name, size = session.get_inputs()[0].name, command["batch_size"]
            parts = [session.run(None, {name: np.array(x[s : s + size])})[0] for s in range(0, len(x), size)]
            np.save(command["answers"], np.concatenate(parts), allow_pickle=False)
        answer["peak_memory_mb"] = peak_memory_mb()
        print(json.dumps(answer), flush=True)


class _Child:
    """A process that has one file open."""

    def __init__(self, path: Path | None, threads: int, batch_size: int) -> None:
        self.path = path
        command = [sys.executable, "-m", "limbeck.edge.measure", "--threads", str(threads)]
        command += ["--batch-size", str(batch_size), *(["--file", str(path)] if path else [])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.cold_start_ms = 0.0

    def wait(self) -> None:
        """Wait until the file is open and has answered once."""
        self.cold_start_ms = self._answer()["cold_start_ms"]

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command, wait for its answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self.process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        cause = said[-1] if said else f"exit code {code}"
        raise EdgeError(f"{self.path} cannot be run by onnxruntime here: {cause}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self._errors.close()


@contextlib.contextmanager
def _opened(path: Path | None, threads: int, batch_size: int) -> Iterator[_Child]:
    if path is not None and not path.is_file():
        raise EdgeError(f"{path} is missing; expected an ONNX file.")
    child = _Child(path, threads, batch_size)
    try:
        child.wait()
        yield child
    finally:
        child.close()


def predict(file: Path, inputs: Path, *, threads: int, batch_size: int) -> NDArray[np.float32]:
    """A file's logits [N, K] for the raw samples [N, ...] of an `.npy`, in a child: a runtime that crashes is a message.

    Raises:
        EdgeError: the file is missing, rejected by onnxruntime, or crashes it.
    """
    with tempfile.TemporaryDirectory() as folder, _opened(file, threads, 1) as child:
        answers = Path(folder) / "answers.npy"
        child.ask(predict=str(inputs.absolute()), answers=str(answers), batch_size=batch_size)
        logits: NDArray[np.float32] = np.load(answers, allow_pickle=False)
        return logits


def measure(
    files: dict[str, Path],
    *,
    threads: int,
    batch_size: int,
    warmup_runs: int,
    rounds: int,
    runs_per_round: int,
    bootstrap: int,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Any]:
    """Measure ONNX files side by side.

    Args:
        files: what to measure, by name. With a `teacher` among them, ratios to it are given.
        threads: of one inference.
        batch_size: samples per inference.
        warmup_runs: inferences that are not counted, per file.
        rounds: turns per file.
        runs_per_round: inferences per turn.
        bootstrap: resamples of rounds behind each 95 % interval.
        seed: of order and resampling.
        progress: told (done, total, note).

    Returns:
        `machine`, and per variant p50/p90/p95/p99 in ms with intervals, cold start in ms, peak memory in MB above a
        process that only imported onnxruntime, bytes and sha256; `ratios` of p50 (`a/b` above 1: a is slower).

    Raises:
        EdgeError: a file is missing, rejected by onnxruntime, or crashes it.
    """
    generator = np.random.default_rng(seed)
    names = list(files)
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    peaks: dict[str, float] = {}
    colds: dict[str, list[float]] = {name: [] for name in names}
    with _opened(None, threads, batch_size) as idle:
        idle_peak = idle.ask()["peak_memory_mb"]
    for name in names:
        for _ in range(NUM_COLD_STARTS - 1):
            with _opened(files[name], threads, batch_size) as child:
                colds[name].append(child.cold_start_ms)
    with contextlib.ExitStack() as stack:
        children = {name: stack.enter_context(_opened(files[name], threads, batch_size)) for name in names}
        for name, child in children.items():
            colds[name].append(child.cold_start_ms)
            child.ask(runs=warmup_runs)
        for turn in range(rounds):
            for index in generator.permutation(len(names)):
                answer = children[names[index]].ask(runs=runs_per_round)
                times[names[index]].append(answer["ms"])
                peaks[names[index]] = answer["peak_memory_mb"]
            progress(turn + 1, rounds, f"round {turn + 1}/{rounds}")
    variants: dict[str, Any] = {}
    for name in names:
        by_round = np.array(times[name])
        variants[name] = {
            **{key: _quantile(by_round, q, bootstrap, seed) for key, q in QUANTILES.items()},
            "cold_start_ms": float(np.median(colds[name])),
            "peak_memory_mb": max(0.0, peaks[name] - idle_peak),
            "bytes": files[name].stat().st_size,
            "sha256": sha256(files[name]),
        }
    pairs = [("teacher", name) for name in names if name != "teacher"] if "teacher" in names else []
    if {"model.int8", "model.fp32"} <= set(names):
        pairs.append(("model.int8", "model.fp32"))
    ratios = {f"{a}/{b}": _ratio(np.array(times[a]), np.array(times[b]), bootstrap, seed) for a, b in pairs}
    return {
        "machine": machine(),
        "threads": threads,
        "batch_size": batch_size,
        "idle_peak_mb": idle_peak,
        "variants": variants,
        "ratios": ratios,
    }


def _bounds(values: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return {"low": float(low), "high": float(high)}


def _quantile(by_round: NDArray[np.float64], percent: float, bootstrap: int, seed: int) -> dict[str, float]:
    """A percentile over all runs; its interval resamples whole rounds, since runs of one round are alike."""
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(by_round), (bootstrap, len(by_round)))
    resampled = np.array([np.percentile(by_round[pick], percent) for pick in picks])
    value = float(np.percentile(by_round, percent))
    bounds = _bounds(resampled)
    return {"value": value, "low": min(value, bounds["low"]), "high": max(value, bounds["high"])}


def _ratio(over: NDArray[np.float64], under: NDArray[np.float64], bootstrap: int, seed: int) -> dict[str, float]:
    """Median of the rounds' p50 ratios, with its interval over resampled rounds."""
    ratios = np.median(over, axis=1) / np.median(under, axis=1)
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(ratios), (bootstrap, len(ratios)))
    value = float(np.median(ratios))
    bounds = _bounds(np.median(ratios[picks], axis=1))
    return {"value": value, "low": min(value, bounds["low"]), "high": max(value, bounds["high"])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A measuring child; `limbeck-edge bench` starts it.")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    flags = parser.parse_args()
    try:
        _child(flags.file, flags.threads, flags.batch_size)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the parent turns the last line into its message
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(1)

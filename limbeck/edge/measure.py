"""Latency, cold start and memory of ONNX files, each in a process of its own, taking turns.

A child opens one file and answers commands, a JSON line each way. It ends when its standard input does, busy
or not, so that none outlives whoever asked. Rounds of all files alternate in a shuffled order: what disturbs
the machine for a second disturbs all of them. Only numpy and onnxruntime are needed.
"""

import argparse
import contextlib
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError
from limbeck.edge.manifest import sha256
from limbeck.edge.processors import this_one
from limbeck.edge.session import open_session

QUANTILES = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95, "p99_ms": 99}
NUM_COLD_STARTS = 3
INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "amx_int8"),
    *("neon", "asimd", "asimddp", "i8mm", "sve"),
)
# ONNX Runtime's names of input types -> numpy's, and the values raw input may hold, from .. to (excluded).
# Integers wider than a byte are taken for indices, of which only the first two surely exist.
DTYPES = {
    "tensor(uint8)": (np.uint8, 0, 256),
    "tensor(int8)": (np.int8, -128, 128),
    "tensor(int16)": (np.int16, -(2**15), 2**15),
    "tensor(int32)": (np.int32, 0, 2),
    "tensor(int64)": (np.int64, 0, 2),
    "tensor(float)": (np.float32, 0, 0),
    "tensor(float16)": (np.float16, 0, 0),
    "tensor(double)": (np.float64, 0, 0),
}


def machine() -> dict[str, Any]:
    """What figures were made on: system, processor and its instruction sets, runtime."""
    import onnxruntime

    cpu, flags = this_one()
    with contextlib.suppress(OSError):  # boards name themselves here, ARM's cpuinfo names nothing
        cpu = cpu or Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    return {
        "system": platform.system(),
        "arch": platform.machine(),
        "cpu": cpu or platform.processor() or platform.machine(),
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


def _example(session: Any, batch_size: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Fixed random raw input for a session: [batch_size, ...] per input."""
    feed = {}
    for described in session.get_inputs():
        name, (batch, *rest) = described.name, described.shape or [None]
        if any(not isinstance(size, int) for size in rest):
            raise ValueError(f"input {name!r} has shape {described.shape}; only the first size, the batch, may be open")
        if isinstance(batch, int) and batch != batch_size:
            raise ValueError(f"input {name!r} takes batches of {batch}, asked was for {batch_size}")
        if described.type not in DTYPES:
            raise ValueError(f"input {name!r} is a {described.type}; known: {', '.join(DTYPES)}")
        dtype, low, high = DTYPES[described.type]
        shape = (batch_size, *rest)
        values = generator.integers(low, high, shape) if high else generator.standard_normal(shape)
        feed[name] = values.astype(dtype)
    return feed


def _time(session: Any, feed: dict[str, NDArray[Any]], num_runs: int) -> list[float]:
    """Milliseconds of each of `num_runs` inferences."""
    run, now = session.run, time.perf_counter_ns
    times = []
    for _ in range(num_runs):
        started = now()
        run(None, feed)
        times.append((now() - started) / 1e6)
    return times


def _answers(session: Any, inputs: Path, batch_size: int) -> NDArray[Any]:
    """Logits [N, K] for the samples [N, ...] of an `.npy`, which is never in memory whole."""
    x = np.load(inputs, mmap_mode="r", allow_pickle=False)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: np.array(x[s : s + batch_size])})[0] for s in range(0, len(x), batch_size)]
    if not parts:
        raise ValueError(f"{inputs} holds no sample")
    answers: NDArray[Any] = np.concatenate(parts)
    return answers


def _child(path: Path | None, threads: int, batch_size: int) -> None:
    """Answer commands until standard input ends. Without a file: import the runtime, tell the memory of that."""
    commands: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            command = json.loads(line)
            samples = sys.stdin.buffer.read(command["bytes"]) if "bytes" in command else b""
            commands.put((command, samples))
        os._exit(0)  # whoever asked is gone, or needs no more: end even in the middle of an inference

    threading.Thread(target=listen, daemon=True).start()
    # answers keep the pipe to themselves: what a library prints goes to stderr
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(answer: dict[str, Any]) -> None:
        pipe.write(json.dumps(answer).encode() + b"\n")
        pipe.flush()

    import onnxruntime  # noqa: F401  (its memory is what a file's is counted above)

    generator = np.random.default_rng(0)  # without a file, too: numpy.random's memory is not the file's
    session: Any = None
    feed: dict[str, NDArray[Any]] = {}
    started = time.perf_counter_ns()
    if path is not None:
        session = open_session(path, threads)
        feed = _example(session, batch_size, generator)
        session.run(None, feed)
    tell({"cold_start_ms": (time.perf_counter_ns() - started) / 1e6})
    while True:
        command, samples = commands.get()
        if "runs" in command:
            _time(session, feed, command["uncounted"])
            times = _time(session, feed, command["runs"])
            tell({"ms": times, "peak_memory_mb": peak_memory_mb()})
        elif "predict" in command or "bytes" in command:
            if "predict" in command:
                logits = _answers(session, Path(command["predict"]), command["batch_size"])
            else:
                batch = np.frombuffer(samples, command["dtype"]).reshape(command["shape"])
                logits = session.run(None, {session.get_inputs()[0].name: batch})[0]
            tell({"shape": logits.shape, "dtype": logits.dtype.str})
            pipe.write(np.ascontiguousarray(logits).data)
            pipe.flush()
        else:
            tell({"peak_memory_mb": peak_memory_mb()})


class _Child:
    """A process that has one file open. `launcher` are the words before its command: those of an emulator."""

    def __init__(self, path: Path | None, threads: int, batch_size: int, launcher: tuple[str, ...] = ()) -> None:
        self.path = path
        command = [*launcher, sys.executable, "-m", "limbeck.edge.measure", "--child", "--threads", str(threads)]
        command += ["--batch-size", str(batch_size), *(["--file", str(path)] if path else [])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._pipe = self._process.stdin, self._process.stdout
        self.cold_start_ms = 0.0

    def wait(self) -> None:
        """Wait until the file is open and has answered once."""
        self.cold_start_ms = self._answer()["cold_start_ms"]

    def _answer(self) -> dict[str, Any]:
        line = self._pipe.readline()
        if not line.endswith(b"\n"):
            raise EdgeError(self._why_it_ended())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, *, samples: bytes = b"", **command: Any) -> dict[str, Any]:
        """Send a command, and the bytes that it announces, and wait for its answer."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(json.dumps(command).encode() + b"\n" + samples)
            self._commands.flush()
        return self._answer()

    def ask_array(self, *, samples: bytes = b"", **command: Any) -> NDArray[Any]:
        """Send a command whose answer is an array; it comes through the pipe, so that a kill leaves no file behind."""
        described = self.ask(samples=samples, **command)
        values: NDArray[Any] = np.empty(described["shape"], described["dtype"])
        left = values.data.cast("B")
        while left:
            num_bytes = self._pipe.readinto(left)  # type: ignore[attr-defined]
            if not num_bytes:
                raise EdgeError(self._why_it_ended())
            left = left[num_bytes:]
        return values

    def _why_it_ended(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            name = signal.Signals(-code).name
            cause = f"the process was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
        else:
            cause = said[-1] if said else f"exit code {code}"
        return f"{self.path or 'onnxruntime'} cannot be run by onnxruntime here: {cause}"

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        self._pipe.close()
        self._process.wait()
        self._errors.close()


@contextlib.contextmanager
def _opened(path: Path | None, threads: int, batch_size: int, launcher: tuple[str, ...] = ()) -> Iterator[_Child]:
    child = _Child(path, threads, batch_size, launcher)
    try:
        child.wait()
        yield child
    finally:
        child.close()


def _refuse_missing(path: Path, kind: str) -> None:
    if not path.is_file():
        raise EdgeError(f"{path} is missing; expected {kind}.")


def predict(
    file: Path, inputs: Path, *, threads: int, batch_size: int, launcher: tuple[str, ...] = ()
) -> NDArray[np.float32]:
    """A file's logits [N, K] for the raw samples [N, ...] of an `.npy`, in a child: a runtime that crashes is a message.

    With a `launcher` the child runs below it, as on the processor that an emulator plays.

    Raises:
        EdgeError: a file is missing, rejected by onnxruntime, crashes it, or does not fit the samples.

    """
    _refuse_missing(file, "an ONNX file")
    _refuse_missing(inputs, "an array of samples (.npy)")
    with _opened(file, threads, 1, launcher) as child:
        return child.ask_array(predict=str(inputs), batch_size=batch_size)


@contextlib.contextmanager
def answering(file: Path, *, threads: int, batch_size: int) -> Iterator[Callable[[NDArray[Any]], NDArray[np.float32]]]:
    """A file that answers as often as it is asked: raw samples [N, ...] -> logits [N, K], `batch_size` at a time.

    It is open in a child, as for `predict`. What is asked next may depend on what it said: an episode goes on.

    Raises:
        EdgeError: the file is missing, rejected by onnxruntime, crashes it, or does not fit the samples.

    """
    _refuse_missing(file, "an ONNX file")
    with _opened(file, threads, 1) as child:

        def answers(x: NDArray[Any]) -> NDArray[np.float32]:
            parts = []
            for start in range(0, len(x), batch_size):
                batch = np.ascontiguousarray(x[start : start + batch_size])
                about = {"bytes": batch.nbytes, "dtype": batch.dtype.str, "shape": batch.shape}
                parts.append(child.ask_array(samples=batch.tobytes(), **about))
            return np.concatenate(parts)

        yield answers


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

    A turn begins with some uncounted inferences: the first ones after a switch find the processor's caches as the
    other files left them, and would be what p99 tells of. Cold starts find the file in the system's cache.

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
    for path in files.values():
        _refuse_missing(path, "an ONNX file")
    generator = np.random.default_rng(seed)
    names = list(files)
    facts = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()}
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
            child.ask(uncounted=warmup_runs, runs=0)
        for turn in range(rounds):
            for index in generator.permutation(len(names)):
                answer = children[names[index]].ask(uncounted=max(1, runs_per_round // 10), runs=runs_per_round)
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
            **facts[name],
        }
    return {
        "machine": machine(),
        "threads": threads,
        "batch_size": batch_size,
        "idle_peak_mb": idle_peak,
        "variants": variants,
        "ratios": {
            f"{a}/{b}": _ratio(np.array(times[a]), np.array(times[b]), bootstrap, seed) for a, b in pairs(names)
        },
    }


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """Which ratios are given: the teacher to each other variant, int8 to its fp32 version."""
    found = [("teacher", name) for name in names if name != "teacher"] if "teacher" in names else []
    return found + ([("model.int8", "model.fp32")] if {"model.int8", "model.fp32"} <= set(names) else [])


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


def _main() -> None:
    parser = argparse.ArgumentParser(description="A measuring child. `limbeck-edge bench FILE` is for people.")
    parser.add_argument("--child", action="store_true", required=True)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    flags = parser.parse_args()
    try:
        _child(flags.file, flags.threads, flags.batch_size)
    except BaseException as error:  # the parent turns the last line into its message
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr, flush=True)
        os._exit(1)  # the ordinary end would wait for the thread that listens


if __name__ == "__main__":
    _main()

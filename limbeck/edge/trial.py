"""A new bundle proves itself on this device, in a process of its own: one that crashes the runtime is a message.

python -m limbeck.edge.trial FOLDER      prints what it found as JSON, or says on stderr what is wrong
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.edge import EdgeError, bundle, golden, tokenizer
from limbeck.edge.session import open_session

LIMIT_S = 300
ROUNDS = 3
RUNS = 100
WARMUP_RUNS = 20
ROUND_S = 5.0
Latency = Callable[[Any, dict[str, Any], float | None], float]
"""Session, input and the contract's clause in ms -> p95 in ms."""


def prove(folder: Path) -> dict[str, Any]:
    """Golden answers and latency of a bundle here, found by a child.

    Returns:
        `max_difference` to the golden logits, relative to the largest; `p95_ms` of the best round.

    Raises:
        EdgeError: it crashes, does not end, answers otherwise than where it was made, or is too slow here.

    """
    command = [sys.executable, "-m", "limbeck.edge.trial", str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == -signal.SIGALRM:
        raise EdgeError(f"{folder.name} did not end its trial within {LIMIT_S} s on this device.")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise EdgeError(f"{folder.name} took its process down here ({name}).")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise EdgeError(said[-1] if said else f"{folder.name}: the trial ended with exit code {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def p95_ms(session: Any, feed: dict[str, Any], limit_ms: float | None) -> float:
    """The p95 of the best of some rounds: what the rest of the device does may disturb one, a slow model disturbs all.

    Args:
        session: of the model.
        feed: its input, a batch as the contract was measured with.
        limit_ms: what the contract allows; the first round that keeps it is enough.

    """
    best = float("inf")
    for _ in range(ROUNDS):
        times, began = [], time.perf_counter()
        for _ in range(WARMUP_RUNS + RUNS):
            started = time.perf_counter()
            session.run(None, feed)
            times.append((time.perf_counter() - started) * 1e3)
            if started - began > ROUND_S:
                break
        counted = times[WARMUP_RUNS:] or times[-1:]
        best = min(best, float(np.percentile(counted, 95)))
        if limit_ms is None or best <= limit_ms:
            break
    return best


def examine(folder: Path, latency: Latency = p95_ms) -> dict[str, Any]:
    """What `prove` tells, in this process; `latency` measures, or knows, what a call takes here."""
    manifest = bundle.read(folder)
    inputs, _ = golden.read(folder / bundle.GOLDEN, manifest.variant)
    if inputs.shape[1:] != manifest.shape or inputs.dtype.name != manifest.dtype or not len(inputs):
        raise EdgeError(f"{folder.name}: golden inputs are {inputs.dtype} {inputs.shape}, not what the manifest says.")
    if manifest.has_tokenizer:
        golden.check_texts(folder / bundle.GOLDEN, tokenizer.read(folder / tokenizer.NAME))
    session = open_session(folder / manifest.model_file, manifest.threads)
    size, name = manifest.batch_size, manifest.input_name
    answers = [session.run(None, {name: inputs[at : at + size]})[0] for at in range(0, len(inputs), size)]
    proof = golden.check(
        folder / bundle.GOLDEN,
        manifest.variant,
        np.concatenate(answers),
        max_difference=manifest.max_difference,
    )
    feed = {name: np.resize(inputs, (size, *inputs.shape[1:]))}
    found_ms = latency(session, feed, manifest.max_p95_ms)
    if manifest.max_p95_ms is not None and found_ms > manifest.max_p95_ms:
        raise EdgeError(
            f"{folder.name} is too slow on this device: p95 {found_ms:.3g} ms, its contract allows {manifest.max_p95_ms:g} ms."
        )
    return {"max_difference": proof.max_difference, "p95_ms": found_ms}


def _main() -> None:
    # Native code that hangs hears no exception: the alarm's default ends the process, and none is left behind.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT_S)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    try:
        found = examine(Path(sys.argv[1]))
    except Exception as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        raise SystemExit(2) from None
    with contextlib.closing(answers):
        json.dump(found, answers)


if __name__ == "__main__":
    _main()

"""What the agent costs a device: start-up and memory beside a bare onnxruntime session on the same file.

Both processes import what they need, open the file with the same options and answer one sample; the agent also verifies
the bundle, and has its own thread running when its memory is read. They take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import bundles
from benchmarks.places import ROOT
from limbeck.components import Component
from limbeck.edge.bundle import key_of
from limbeck.edge.home import init

LIMITS = {"start_over_bare": 1.2, "memory_over_bare": 1.2}
REPEATS = 15
NETWORK = Component(use="resnet", depth=20, width=16)
BARE = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
answer = lambda x: session.run(None, {"input": x})
"""
AGENT = """
import sys
import numpy as np
from limbeck.edge.agent import Agent
answer = Agent(sys.argv[1]).predict
"""
MEASURED = """
x = np.zeros((1, 32, 32, 3), np.uint8)
answer(x)
print("answered", flush=True)
import time
until = time.monotonic() + 2
while time.monotonic() < until:
    answer(x)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1], flush=True)
import os
os._exit(0)
"""


def device(place: Path) -> tuple[Path, Path]:
    """A device's home that serves an untrained network of a usual size, and its file."""
    folder = place / "bundle"
    digest = bundles.write(folder, "benchmark", 1, NETWORK, (32, 32, 3), max_p95_ms=None)
    (place / "provisioned").mkdir()
    (place / "provisioned" / "root.json").write_text("{}")
    described = {"server": None, "metadata": "tuf", "model": "benchmark"}
    (place / "provisioned" / "device.json").write_text(json.dumps(described))
    home = init(place / "provisioned", place / "home")
    key = key_of(1, digest)
    folder.rename(home.bundle(key))
    with home.edit() as record:
        record.current = key
    return home.path, home.bundle(key) / f"{bundles.VARIANT}.onnx"


def once(code: str, argument: Path, cache: Path) -> tuple[float, float]:
    """Seconds until the first answer of a new process, and its peak memory in MB; `cache` keeps compiled code."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache)}  # as pip does
    started = time.perf_counter()
    command = [sys.executable, "-c", code + MEASURED, str(argument)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "answered\n":
            raise SystemExit("a process gave no answer")
        seconds = time.perf_counter() - started
        return seconds, int(process.stdout.readline()) * 1024 / 1e6


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Interleaved starts of both."""
    home, file = device(place / "agent")
    found: dict[str, list[tuple[float, float]]] = {"bare": [], "agent": []}
    for code, argument in ((BARE, file), (AGENT, home)):
        once(code, argument, place)  # fills the caches of Python and the system
    for _ in range(REPEATS):
        found["bare"].append(once(BARE, file, place))
        found["agent"].append(once(AGENT, home, place))
    starts = [ours[0] / bare[0] for ours, bare in zip(found["agent"], found["bare"], strict=True)]
    memory = [ours[1] / bare[1] for ours, bare in zip(found["agent"], found["bare"], strict=True)]
    return {
        "seconds": {name: statistics.median(seconds for seconds, _ in pairs) for name, pairs in found.items()},
        "memory_mb": {name: statistics.median(mb for _, mb in pairs) for name, pairs in found.items()},
        "all": found,
        "file_bytes": file.stat().st_size,
        "ratios": {"start_over_bare": statistics.median(starts), "memory_over_bare": statistics.median(memory)},
        "spread": {"start_over_bare": [min(starts), max(starts)], "memory_over_bare": [min(memory), max(memory)]},
        "limits": LIMITS,
    }

"""A fleet that takes an update at one moment, from one MLflow server, and once more when that server is overloaded and away.

    at once     all agents begin at the same moment; the server answers
    away        the same, but for the first seconds every request is answered 503 with `Retry-After`, then nobody listens
                until MLflow's server has started again

The agents are threads in four processes (`agents.py`) and share the machine with the server: seconds and requests per second are
those of both. Every knock is counted by the agents, answered or not; the server's log is a second count of those answered.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import bundles
from benchmarks.fleet.server import NUM_WORKERS, Busy, Mlflow, free_port
from benchmarks.places import ROOT, environment
from limbeck.components import Component
from limbeck.edge.fetch import Server
from limbeck.edge.home import Home, init
from limbeck.edge.update import update
from limbeck.publishing import keys
from limbeck.publishing.serving import Publisher
from limbeck.tracking import delivery

NUM_AGENTS, NUM_QUICK = 500, 32
NUM_PROCESSES = 4
LIMIT_S = 1800.0
"""An agent that has no update by then is left behind; a server needs minutes to start on a machine that has much else to do."""
MODEL, NETWORK, SHAPE, MAX_P95_MS = "fleet", Component(use="convnet", width=16, depth=2), (16, 16, 1), 20.0
SETTINGS = {"check_every_s": 60.0}
"""Who gave up comes back after a minute instead of an hour."""
RETRY_AFTER_S, BUSY_S = 10, 5.0
LIMITS = {
    "left behind, at once": 0.0,
    "left behind, away": 0.0,
    "knocks before their time": 0.0,
    "busiest second, away over at once": 1.5,
    "requests, away over at once": 2.0,
}


class Shelf:
    """The registry: any serial is an untrained network."""

    def serial_at(self, model: str, alias: str) -> int:
        """Nobody asks: every serial is named."""
        raise NotImplementedError

    def make_bundle(self, model: str, serial: int, folder: Path) -> str:
        """See `limbeck.publishing.places.Registry`."""
        return bundles.write(folder, model, serial, NETWORK, SHAPE, max_p95_ms=MAX_P95_MS)

    def mirror(self, model: str, alias: str, number: str | None) -> str | None:
        """Shown nowhere."""
        return number


def provision(place: Path, publisher: Publisher, count: int) -> list[Path]:
    """Homes of a fleet that runs serial 1, each with an id of its own."""
    publisher.publish(MODEL, serial=1)
    publisher.provision(MODEL, place / "provisioned")
    told = place / "provisioned" / "device.json"
    described = {**json.loads(told.read_text()), "settings": SETTINGS}
    told.write_text(json.dumps(described))
    first = init(place / "provisioned", place / "homes" / "0")
    update(first, Server(described["server"], described["metadata"]))
    with first.edit() as record:
        record.commit()
    homes = [first.path]
    for number in range(1, count):
        home = place / "homes" / str(number)
        shutil.copytree(first.path, home, symlinks=True)
        device = json.loads((home / "device.json").read_text())
        (home / "device.json").write_text(json.dumps({**device, "id": os.urandom(8).hex()}))
        homes.append(home)
    return homes


def wave(homes: list[Path], serial: int, *, meanwhile: Callable[[float], None] = lambda _: None) -> dict[str, Any]:
    """Let the fleet loose and tell what it did; `meanwhile` gets the moment at which it begins."""
    processes = []
    for index in range(NUM_PROCESSES):
        processes.append(
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("agents.py"))],
                env={**environment(homes[0].parent), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        own = [str(home) for home in homes[index::NUM_PROCESSES]]
        say(processes[-1], json.dumps({"homes": own, "serial": serial, "limit_s": LIMIT_S}))
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("a process of agents did not start")
    start = time.monotonic() + 2.0  # threads have to be made, too
    for process in processes:
        say(process, str(start))
    meanwhile(start)
    lives = [life for process in processes for life in json.loads(process.communicate()[0])]
    return told(lives, homes, serial, start)


def say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


@dataclass(frozen=True)
class Knock:
    """One request of one agent, seconds after the fleet began."""

    at: float
    is_first: bool
    was_in_vain: bool
    """Whether the agent's knock before this one was: then this is a retry."""
    is_early: bool
    """Whether it came before the moment that `Retry-After` had named."""
    is_answered: bool


def knocks_of(life: dict[str, Any], start: float) -> list[Knock]:
    """An agent's requests in their order."""
    found, before = [], None
    for at, kind, retry_after_s in life["knocks"]:
        vain = before is not None and before[1] != "answered"
        early = before is not None and at < before[0] + before[2]
        found.append(Knock(at - start, before is None, vain, early, kind == "answered"))
        before = (at, kind, retry_after_s)
    return found


def per_second(knocks: list[Knock]) -> list[int]:
    """How many fall into each second, from the first on."""
    counts = Counter(int(knock.at) for knock in knocks)
    return [counts[second] for second in range(max(counts, default=-1) + 1)]


def told(lives: list[dict[str, Any]], homes: list[Path], serial: int, start: float) -> dict[str, Any]:
    """A wave in figures. `left_behind` is read from the devices' own records."""
    each = [knocks_of(life, start) for life in lives]
    knocks = [knock for own in each for knock in own]
    proofs = [difference for life in lives for difference in life["max_difference"]]
    seconds = max((life["ended"] or start + LIMIT_S) - start for life in lives)
    behind = [home for home in homes if not (Home(home).read().current or "").startswith(f"{serial}-")]
    return {
        "agents": len(lives),
        "left_behind": len(behind),
        "said": sorted({life["said"] for life in lives if life["ended"] is None}),
        "seconds": seconds,
        "first_answer_s": min((knock.at for knock in knocks if knock.is_answered), default=None),
        "requests": len(knocks),
        "answered": sum(knock.is_answered for knock in knocks),
        "retries": sum(knock.was_in_vain for knock in knocks),
        "early": sum(knock.is_early for knock in knocks),
        "most_in_vain_of_one": max(sum(not knock.is_answered for knock in own) for own in each),
        "most_looks_of_one": max(life["looks"] for life in lives),
        "came_back_on_schedule": sum(life["looks"] > 1 for life in lives),
        "bytes": sum(life["bytes"] for life in lives),
        "golden_checks": len(proofs),
        "max_difference": max(proofs, default=None),
        "requests_per_second": len(knocks) / seconds,
        "busiest_second": max(per_second([knock for knock in knocks if not knock.is_first]), default=0),
        "busiest_second_of_retries": max(per_second([knock for knock in knocks if knock.was_in_vain]), default=0),
        "per_second": per_second(knocks),
        "retries_per_second": per_second([knock for knock in knocks if knock.was_in_vain]),
    }


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Both waves; a smaller fleet on tests/tiny.yaml."""
    count = NUM_QUICK if params == ROOT / "tests" / "tiny.yaml" else NUM_AGENTS
    place = place / "fleet"
    place.mkdir()
    port = free_port()
    with Mlflow(place, port) as mlflow:
        publisher = Publisher(
            keys.init(place / "keys"),
            delivery.Server(mlflow.address),
            registry=Shelf(),
            ledger_file=place / "ledger.jsonl",
        )
        homes = provision(place, publisher, count)
        publisher.publish(MODEL, serial=2)
        mlflow.take_peak_bytes()
        before = mlflow.num_answered()
        once = wave(homes, 2)
        logged = mlflow.num_answered() - before
        once |= {"server_peak_mb": mlflow.take_peak_bytes() / 1e6, "answered_by_the_servers_log": logged}
        publisher.publish(MODEL, serial=3)
        mlflow.end()
        busy = Busy(port, RETRY_AFTER_S)

        def meanwhile(start: float) -> None:
            time.sleep(max(0.0, start + BUSY_S - time.monotonic()))
            busy.end()
            mlflow.begin(wait=False)

        mlflow.take_peak_bytes()
        away = wave(homes, 3, meanwhile=meanwhile)
        away |= {"server_peak_mb": mlflow.take_peak_bytes() / 1e6}
    return {
        "seconds": {
            "to the last one, at once": once["seconds"],
            "to the last one, away": away["seconds"],
            "first request answered, away": away["first_answer_s"],
        },
        "num_agents": count,
        "num_processes": NUM_PROCESSES,
        "num_workers": NUM_WORKERS,
        "retry_after_s": RETRY_AFTER_S,
        "busy_s": BUSY_S,
        "at once": once,
        "away": away,
        "ratios": {
            "left behind, at once": float(once["left_behind"]),
            "left behind, away": float(away["left_behind"]),
            "knocks before their time": float(once["early"] + away["early"]),
            "busiest second, away over at once": away["busiest_second"] / once["busiest_second"],
            "requests, away over at once": away["requests"] / once["requests"],
        },
        "limits": LIMITS,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as docs/device.md shows them."""
    waves = [result["at once"], result["away"]]
    rows = {
        "devices": [f"{each['agents']:,}" for each in waves],
        "left behind": [f"{each['left_behind']}" for each in waves],
        "time to the last one": [f"{each['seconds']:.0f} s" for each in waves],
        "first request answered after": [f"{each['first_answer_s']:.0f} s" for each in waves],
        "golden checks": [f"{each['golden_checks']:,}" for each in waves],
        "requests": [f"{each['requests']:,}" for each in waves],
        "of them repeated ones": [f"{each['retries']:,}" for each in waves],
        "bytes served": [f"{each['bytes']:,}" for each in waves],
        "requests per second": [f"{each['requests_per_second']:.0f}" for each in waves],
        "busiest second, after each device's first request": [f"{each['busiest_second']:,}" for each in waves],
        "busiest second of repeated ones": [f"{each['busiest_second_of_retries']:,}" for each in waves],
        "server's memory, peak": [f"{each['server_peak_mb']:.0f} MB" for each in waves],
    }
    head = "| | all at once | overloaded, then away, at first |\n|---|---|---|\n"
    return head + "\n".join(f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items())

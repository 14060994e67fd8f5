"""Faults in real processes, one after another on devices that live on; each has to be survived.

python -m benchmarks.faults.drill --seeds 20 --journal FILE     (`python -m benchmarks faults` calls it)

A fault: the next version is published, something befalls its delivery, `limbeck-edge update` runs into it; then the fault is
over, and an honest update has to bring the newest version. Meanwhile an application in a process of its own asks the model twenty
times a second. What is drawn depends on kind and seed alone.
"""

import argparse
import json
import queue
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.faults import read
from benchmarks.faults.device import Device, Update
from benchmarks.faults.kinds import KINDS, Scene
from benchmarks.faults.proxy import Proxy
from benchmarks.faults.repository import Repository
from benchmarks.faults.server import mlflow_server

LANES = ("a", "b")
PATIENCE_S = 8.0
"""The fault lasts so long for an update that does not give up; then it has to go on by itself."""
MOST_GAP_S = 5.0
MOST_SWALLOWED = 50_000_000


class Lane:
    """A device, its proxy, and one model of its own."""

    def __init__(self, name: str, place: Path, repository: Repository, patience: float) -> None:
        self.model, self.repository, self.serial = f"drill-{name}", repository, 0
        self.proxy, self.device = Proxy(repository.uri), Device(place / name, patience)
        self.patience = patience
        try:
            self.publish()
            repository.provision(self.model, place / name / "provisioned", self.proxy.address)
            self.device.init(place / name / "provisioned")
            self._honestly()
            with self.device.home.edit() as record:
                record.commit()
            self.device.start()
            for _ in range(2):  # whole updates, which tell how many operations each step takes
                self.publish()
                self._honestly()
                self._wait_until_committed()
            self.device.told()
            self.device.witnessed()
        except BaseException:
            self.close()
            raise

    def publish(self, **options: Any) -> None:
        """The next serial."""
        self.serial += 1
        self.repository.publish(self.model, self.serial, **options)

    def _honestly(self) -> tuple[int | None, str]:
        update = self.device.update()
        said = update.end(self.device.longest_s)
        if said is None:
            update.kill()
            update.end(self.device.longest_s)
        return update.code, said or "it hangs"

    def _wait_until_committed(self) -> None:
        def done() -> bool:
            record = self.device.record
            return self.device.serial == self.serial and not record.on_probation

        self.device.wait_for(done, f"version {self.serial} to be in use and committed")

    def play(self, name: str, seed: int) -> dict[str, Any]:
        """One fault: what was said, and what is wrong (nothing, if it was survived)."""
        kind, began = KINDS[name], time.monotonic()
        draw = random.Random(f"{name} {seed}")
        before, floors = self.serial, self.device.floors
        self.publish(version=kind.version(draw))
        scene = Scene(draw, seed, self.device, self.proxy, self.repository, self.serial)
        self.device.told()
        kind.befall(scene)
        said, wrong = self._update_under(scene)
        if scene.ends_in_use:
            self.device.wait_for(lambda: self.device.serial == before, f"version {before} to come back")
            said = next(iter(reversed(self.device.record.refused.values())))
        elif scene.is_bad or scene.is_withheld or self.device.serial != before:
            time.sleep(0.3)
        if scene.kills_application:
            self.device.kill()
            self.device.start()
        if self.device.serial != before:
            self.device.wait_for(lambda: self.device.answering() == self.device.serial, "the application to follow")
        during = self.device.told()
        allowed = {before} if scene.is_bad or scene.is_withheld else {before, self.serial}
        wrong += _judge_answers(during, allowed, MOST_GAP_S * self.patience)
        if self.device.serial not in allowed:
            wrong.append(f"version {self.device.serial} is in use, allowed were {sorted(allowed)}")
        wrong += [
            f"{role} metadata went back to {found}"
            for role, found in self.device.floors.items()
            if found < floors.get(role, 0)
        ]
        if scene.swallowed > MOST_SWALLOWED:
            wrong.append(f"{scene.swallowed:,} bytes were taken of what has no end")
        self._mend()
        if scene.is_bad:
            self.publish()
        code, honestly = self._honestly()
        if code != 0:
            wrong.append(f"the honest update failed: {honestly}")
        self._wait_until_committed()
        self.device.wait_for(lambda: self.device.answering() == self.serial, f"answers of version {self.serial}")
        after = self.device.told()
        wrong += _judge_answers(after, {*allowed, self.serial}, MOST_GAP_S * self.patience)
        wrong += self._judge_opened()
        return {
            "kind": name,
            "seed": seed,
            "said": said,
            "wrong": wrong,
            "answers": sum(count for _, count in during["runs"] + after["runs"]),
            "longest_gap_s": round(max(during["longest_s"], after["longest_s"]), 3),
            "seconds": round(time.monotonic() - began, 2),
        }

    def _update_under(self, scene: Scene) -> tuple[str, list[str]]:
        update: Update = self.device.update(**scene.environment)
        said = update.end(PATIENCE_S * self.patience)
        if said is None:
            self._mend()
            said = update.end(self.device.longest_s)
            if said is None:
                update.kill()
                update.end(self.device.longest_s)
                return "it hangs", ["the update hung, also without the fault"]
            said = f"(once the fault was over) {said}"
        if "DRILL_KILL" in scene.environment and update.code != -9:
            return said, ["the update was not killed"]
        return said, [said] if "a traceback" in said else []

    def _mend(self) -> None:
        self.proxy.fault = None
        self.proxy.open()
        self.device.disk.mend()

    def _judge_opened(self) -> list[str]:
        """Whatever reached the runtime or the reader of golden answers was signed, and was what had been signed."""
        wrong = []
        for line in self.device.witnessed():
            path = Path(line["opened"])
            signed = self.repository.shelf.signed.get(path.parent.name, {})
            if path.parent.parent != self.device.path / "bundles" or signed.get(path.name) != line["sha256"]:
                wrong.append(f"{path} was opened, which nobody had signed ({line['sha256'][:16]})")
        return wrong

    def start_anew(self) -> None:
        """After a failure: the application lives, the newest version is in use."""
        self._mend()
        if not self.device.is_alive:
            self.device.start()
        self.publish()
        self._honestly()
        self._wait_until_committed()
        self.device.told()
        self.device.witnessed()

    def close(self) -> None:
        """End the application and the proxy."""
        self._mend()
        self.device.stop()
        self.proxy.close()
        self.device.disk.close()


def _judge_answers(told: dict[str, Any], allowed: set[int], most_gap_s: float) -> list[str]:
    """A right answer every time, of a version that may be in use, and never again of the one before."""
    serials = [serial for serial, _ in told["runs"]]
    wrong = [f"the application got: {error}" for error in told["errors"]]
    if not serials or told["longest_s"] > most_gap_s:
        wrong.append(f"no answer for {told['longest_s']:.1f} s")
    if serials != sorted(set(serials) & allowed):
        wrong.append(f"answers came from versions {serials}, allowed were {sorted(allowed)}")
    return wrong


def plan(num_seeds: int, can_mount: bool) -> list[tuple[str, int]]:
    """Every kind with every seed, one of each kind at a time."""
    return [
        (name, seed) for seed in range(num_seeds) for name, kind in KINDS.items() if can_mount or not kind.needs_mounts
    ]


@contextmanager
def _lanes(place: Path, patience: float) -> Iterator[list[Lane]]:
    opened: list[Lane] = []
    with mlflow_server(place) as uri:
        repository = Repository(place, uri)
        try:
            for name in LANES:
                opened.append(Lane(name, place, repository, patience))
            yield opened
        finally:
            for lane in opened:
                lane.close()


def drill(place: Path, num_seeds: int, journal: Path, patience: float = 1.0, only: str | None = None) -> None:
    """Play what the journal does not hold yet, and write each fault's line there."""
    done = {(line["kind"], line["seed"]) for line in read(journal)}
    with _lanes(place, patience) as lanes, journal.open("a") as stream:
        waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        chosen = [each for each in plan(num_seeds, lanes[0].device.disk.is_real) if only is None or only in each[0]]
        for each in chosen:
            if each not in done:
                waiting.put(each)
        lock, began, played = threading.Lock(), time.monotonic(), len(done)

        def work(lane: Lane) -> None:
            nonlocal played
            while True:
                try:
                    name, seed = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    found = lane.play(name, seed)
                except Exception as error:  # what was not thought of is not survived, and the drill goes on
                    found = {"kind": name, "seed": seed, "said": "", "wrong": [f"{type(error).__name__}: {error}"]}
                    traceback.print_exc()
                    lane.start_anew()
                with lock:
                    played += 1
                    stream.write(json.dumps(found) + "\n")
                    stream.flush()
                    mark = "survived" if not found["wrong"] else f"NOT SURVIVED: {found['wrong']}"
                    minutes = (time.monotonic() - began) / 60
                    print(
                        f"{played}/{len(chosen)} {minutes:.1f} min  {name} {seed}  {mark}  {found['said'][:110]}",
                        flush=True,
                    )

        with ThreadPoolExecutor(len(lanes)) as pool:
            for finished in [pool.submit(work, lane) for lane in lanes]:
                finished.result()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="of each kind")
    parser.add_argument(
        "--journal", type=Path, required=True, help="a line per fault; what it holds is not played again"
    )
    parser.add_argument(
        "--patience", type=float, default=1.0, help="times the usual, on a machine that is busy with other things"
    )
    parser.add_argument("--only", help="kinds whose name holds this")
    flags = parser.parse_args()
    flags.journal.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="drill", ignore_cleanup_errors=True) as folder:
        drill(Path(folder), flags.seeds, flags.journal, flags.patience, flags.only)


if __name__ == "__main__":
    sys.exit(main())

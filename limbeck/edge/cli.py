"""The command `limbeck-edge`, on the device."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.edge import EdgeError

if TYPE_CHECKING:
    import threading

    from limbeck.edge.home import Home

BENCH = """\
Measure ONNX files on this machine. Each runs in a process of its own; the files take turns, so that what disturbs
the machine disturbs all of them and their ratios hold.

  limbeck-edge bench model.int8.onnx                       a table
  limbeck-edge bench model.fp32.onnx model.int8.onnx       which one is faster here, and how sure that is
  limbeck-edge bench export/phone/*.onnx --json > phone.json

The last one brings the figures of a device into the pipeline: copy phone.json back and write in params.yaml, under
the target,  device: {use: result, file: phone.json}
"""

ABOUT = """\
Limbeck's part on the device: it keeps one model here up to date, and never without one that works.

  limbeck-edge init provisioned/ --home device/     once; the folder comes from `limbeck provision NAME --out provisioned/`
  limbeck-edge update --home device/                fetch, verify, try out, switch; --from STICK without a network
  limbeck-edge status --home device/
  limbeck-edge predict --home device/ samples.npy
  limbeck-edge run --home device/ --app examples/camera.py:watch frames/

Set LIMBECK_EDGE_HOME and leave --home out. In Python:

  from limbeck.edge.agent import Agent
  with Agent("device/") as agent:
      logits = agent.predict(batch)                 from any thread; swapped under you when an update proves itself

docs/device.md tells what is checked, what survives a power cut, and what leaves the device.
"""
INIT = """\
Make a device's state folder: which server and model, the root of trust, a random id.

  limbeck-edge init provisioned/ --home device/

Again with the same root it changes the server and keeps id and state. Settings are in device/device.json.
"""
UPDATE = """\
Bring the device to the version that signed metadata names.

  limbeck-edge update                from the server; its account is in MLFLOW_TRACKING_USERNAME and _PASSWORD
  limbeck-edge update --from STICK   from what `limbeck publish NAME --folder STICK` wrote: the same checks
  limbeck-edge update --again        also what failed on this device before

Every file is held against its signed digest before it is opened, golden answers and latency are proven here, then one
rename switches. The version before stays, and comes back by itself when the new one fails in use. It may be killed at any
time: the same command goes on. Exit code 2: nothing changed, the message says why.
"""
RUN = """\
Keep the model up to date until SIGTERM, and run an application with it. Nothing listens on the network.

  limbeck-edge run                                           updates, probation and reports alone
  limbeck-edge run --app examples/camera.py:watch frames/    with an application in this process

An application is a function of a Python file: it gets the agent, an event that says stop, and the words after it.
"""
ROLLBACK = """\
Serve the version before again, at once. The one left is remembered and not taken again (`update --again` forgets that).

This is one device's way back. `limbeck rollback NAME` takes the whole fleet back.
"""
PREDICT = """\
Answer raw samples [N, ...] of a .npy file, or the lines of a .txt, with the device's model: a line of JSON each.

  limbeck-edge predict samples.npy
  limbeck-edge predict samples.npy --logits out.npy
  limbeck-edge predict requests.txt
"""


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, found {value}")
        return value

    return number


def _progress(done: int, total: int, note: str) -> None:
    print(f"\r{note}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _bench(flags: argparse.Namespace) -> None:
    from limbeck.edge.measure import measure

    names = {path.name.removesuffix(".onnx"): path for path in flags.files}
    if len(names) < len(flags.files):
        raise EdgeError("two files have one name; results are told apart by it. Measure them in two calls.")
    measured = measure(
        names,
        threads=flags.threads,
        batch_size=flags.batch_size,
        warmup_runs=flags.warmup_runs,
        rounds=flags.rounds,
        runs_per_round=flags.runs_per_round,
        bootstrap=2000,
        seed=0,
        **({"progress": _progress} if sys.stderr.isatty() else {}),
    )
    print(json.dumps(measured, indent=2, allow_nan=False) if flags.json else _table(measured))


def _table(measured: dict[str, Any]) -> str:
    """What was measured, for people."""
    machine, variants = measured["machine"], measured["variants"]
    width = max(len("file"), *map(len, variants))
    lines = [
        f"{machine['cpu']} ({machine['arch']}), onnxruntime {machine['onnxruntime']}, "
        f"{measured['threads']} thread(s), batches of {measured['batch_size']}",
        f"{'file':<{width}}{'bytes':>12}{'p50 ms':>10}{'95% interval':>19}{'p95 ms':>10}{'p99 ms':>10}"
        f"{'cold ms':>10}{'memory MB':>11}",
    ]
    for name, row in variants.items():
        p50 = row["p50_ms"]
        interval = f"{p50['low']:.3f} - {p50['high']:.3f}"
        lines.append(
            f"{name:<{width}}{row['bytes']:>12,}{p50['value']:>10.3f}{interval:>19}{row['p95_ms']['value']:>10.3f}"
            f"{row['p99_ms']['value']:>10.3f}{row['cold_start_ms']:>10.1f}{row['peak_memory_mb']:>11.1f}"
        )
    for pair, found in measured["ratios"].items():
        over, _, under = pair.partition("/")
        lines.append(
            f"{over} takes {found['value']:.2f} times as long as {under} [{found['low']:.2f}, {found['high']:.2f}]"
        )
    lines.append("memory: above a process that only imported onnxruntime; cold: opening the file and its first answer")
    return "\n".join(lines)


def _home(flags: argparse.Namespace) -> "Home":
    from limbeck.edge.home import Home

    return Home(_home_path(flags))


def _home_path(flags: argparse.Namespace) -> Path:
    if flags.home is None:
        raise EdgeError("which device? Give --home FOLDER, or set LIMBECK_EDGE_HOME.")
    return Path(flags.home)


def _init(flags: argparse.Namespace) -> None:
    from limbeck.edge.home import init

    home = init(flags.provisioned, _home_path(flags))
    print(f"device {home.device.id} runs {home.device.model} from {home.device.server or 'sticks'}")
    print(f"Next: limbeck-edge update --home {home.path}")


def _update(flags: argparse.Namespace) -> None:
    from limbeck.edge import spool
    from limbeck.edge.fetch import Server
    from limbeck.edge.update import open_source, update

    home = _home(flags)
    source = open_source(home, flags.stick)
    try:
        outcome = update(home, source, again=flags.again)
        if not flags.quiet or outcome.kind != "current":
            print(f"{home.device.model} serial {outcome.serial} {outcome.why}")
    finally:
        if isinstance(source, Server):  # also when there was no update to be had
            try:
                spool.upload(home, source)
            except (EdgeError, OSError) as error:  # how the update ended is what the command tells
                print(f"limbeck-edge: {error}", file=sys.stderr)


def _status(flags: argparse.Namespace) -> None:
    home = _home(flags)
    record, device = home.read(), home.device
    waiting = [path for path in home.spool.glob("*") if path.suffix in (".json", ".npz")]
    facts = {
        "device": device.id,
        "model": device.model,
        "server": device.server,
        "current": record.current,
        "on_probation": record.on_probation,
        "previous": record.previous,
        "step": record.step,
        "candidate": record.candidate,
        "refused": record.refused,
        "failure": record.failure,
        "held": home.is_held(),
        "spooled": {"files": len(waiting), "bytes": sum(path.stat().st_size for path in waiting)},
    }
    if flags.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{device.model} on device {device.id}, updates from {device.server or 'sticks'}")
    print(f"serves    {record.current or 'nothing yet'}" + (", on probation" if record.on_probation else ""))
    print(f"before it {record.previous or 'none'}")
    if record.candidate:
        print(f"update    {record.candidate} is {record.step}" + (" and waits: 'not now'" if facts["held"] else ""))
    for key, why in record.refused.items():
        print(f"refused   {key}: {why}")
    if record.failure:
        print(f"last try  {record.failure}")
    print(f"spooled   {len(waiting)} files, {sum(path.stat().st_size for path in waiting):,} bytes")


def _rollback(flags: argparse.Namespace) -> None:
    from limbeck.edge import spool

    home = _home(flags)
    with home.edit() as record:
        if record.current is None or record.previous is None:
            raise EdgeError(f"{home.path} keeps no version before {record.current or 'the first'}; nothing changed.")
        left = record.current
        record.go_back("rolled back on the device")
        spool.tell(home, "rolled back", left, "by command on the device")
    print(f"{record.current} serves again; {left} is not taken until `limbeck-edge update --again`")


def _predict(flags: argparse.Namespace) -> None:
    import numpy as np

    from limbeck.edge.agent import Agent
    from limbeck.edge.usage import softmax

    x: Any
    try:
        if flags.samples.suffix == ".txt":
            x = flags.samples.read_bytes().splitlines()  # an empty line is a text, too, and is told
        else:
            x = np.load(flags.samples, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise EdgeError(f"{flags.samples} is no array of samples (.npy): {error}.") from None
    with Agent(_home_path(flags), updates=False) as agent:
        size = agent.manifest.batch_size
        logits_BK = np.concatenate([agent.predict(x[at : at + size]) for at in range(0, max(1, len(x)), size)])
        classes, serial = agent.manifest.classes, agent.serial
    if flags.logits:
        np.save(flags.logits, logits_BK)
    for index, row in enumerate(softmax(logits_BK)):
        best = int(row.argmax())
        answer = {"sample": index, "class": classes[best], "confidence": round(float(row.max()), 4), "serial": serial}
        print(json.dumps(answer))


def _run(flags: argparse.Namespace) -> None:
    import logging
    import signal
    import threading

    from limbeck.edge.agent import Agent

    logging.basicConfig(format="limbeck-edge: %(message)s", level=logging.INFO)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    application = _application(flags.app) if flags.app else None
    home = _home(flags)
    if home.read().current is None and not _first_model(home, flags.stick, stopped):
        return
    with Agent(home.path) as agent:
        if application is None:
            stopped.wait()
        else:
            application(agent, stopped, *flags.words)


def _first_model(home: "Home", stick: Path | None, stopped: "threading.Event") -> bool:
    """Fetch what an agent begins with, however long the server is away; False when told to stop before.

    Ending instead would have a supervisor start the whole fleet again at once, and again.
    """
    import time

    from limbeck.edge import schedule
    from limbeck.edge.fetch import Unavailable
    from limbeck.edge.update import open_source, update

    source, failed = open_source(home, stick), 0
    pause_s = 0.0 if stick else schedule.asked_s(home.read(), time.time())
    while not stopped.wait(pause_s):
        try:
            outcome = update(home, source)
        except Unavailable as error:
            failed += 1
            pause_s = schedule.until_first_s(home.device.settings, home.read(), time.time(), failed)
            print(f"limbeck-edge: {error} Trying again in {pause_s:.0f} s.", file=sys.stderr, flush=True)
        else:
            print(f"{home.device.model} serial {outcome.serial} {outcome.why}", flush=True)
            return True
    return False


def _application(place: str) -> Any:
    """The function at FILE:FUNCTION."""
    import importlib.util

    file, _, name = place.rpartition(":")
    spec = importlib.util.spec_from_file_location("application", file) if Path(file).is_file() else None
    if spec is None or spec.loader is None:
        raise EdgeError(f"--app {place}: {file or place} is no Python file; expected FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := getattr(module, name, None)):
        raise EdgeError(f"--app {place}: {file} has no function {name!r}.")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit code; what the user can mend is one line on stderr and code 2."""
    parser = argparse.ArgumentParser(
        prog="limbeck-edge", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str, text: str, *, home: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=about, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.set_defaults(run=run)
        if home:
            place = os.environ.get("LIMBECK_EDGE_HOME")
            added.add_argument("--home", type=Path, default=place, help="the state folder (default $LIMBECK_EDGE_HOME)")
        return added

    begin = command("init", _init, "make the state folder of a device", INIT)
    begin.add_argument("provisioned", type=Path, help="the folder that `limbeck provision` wrote")
    going = command("run", _run, "keep the model up to date, with an application", RUN)
    going.add_argument("--app", metavar="FILE:FUNCTION", help="an application to run in this process")
    going.add_argument("--from", dest="stick", type=Path, metavar="STICK", help="where a first model comes from")
    going.add_argument("words", nargs="*", metavar="WORD", help="for the application")
    newer = command("update", _update, "take the version that signed metadata names", UPDATE)
    newer.add_argument("--from", dest="stick", type=Path, metavar="STICK", help="a folder instead of the server")
    newer.add_argument("--again", action="store_true", help="try what was refused here once more")
    newer.add_argument("--quiet", action="store_true", help="say nothing when nothing is new")
    state = command("status", _status, "what serves here, and how updates stand", "What serves, and how updates stand.")
    state.add_argument("--json", action="store_true", help="for programs")
    command("rollback", _rollback, "serve the version before again", ROLLBACK)
    answer = command("predict", _predict, "answer samples with the device's model", PREDICT)
    answer.add_argument(
        "samples", type=Path, metavar="SAMPLES", help="raw samples [N, ...] (.npy), or texts, one a line (.txt)"
    )
    answer.add_argument("--logits", type=Path, metavar="OUT.npy", help="also write the logits [N, K]")
    bench = command("bench", _bench, "latency, cold start and memory of ONNX files here", BENCH, home=False)
    bench.add_argument("files", type=Path, nargs="+", metavar="FILE", help="an ONNX file; several take turns")
    bench.add_argument("--json", action="store_true", help="everything that was measured, as JSON")
    bench.add_argument("--threads", type=_at_least(1), default=1, help="of one inference (default 1)")
    bench.add_argument("--batch-size", type=_at_least(1), default=1, help="samples per inference (default 1)")
    bench.add_argument("--warmup-runs", type=_at_least(0), default=50, help="not counted, per file (default 50)")
    bench.add_argument(
        "--rounds", type=_at_least(3), default=20, help="turns per file; intervals come from them (default 20)"
    )
    bench.add_argument("--runs-per-round", type=_at_least(1), default=100, help="inferences per turn (default 100)")
    flags = parser.parse_args(arguments)
    try:
        flags.run(flags)
    except EdgeError as error:
        print(f"limbeck-edge: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"limbeck-edge: {error}; nothing was lost, repeat the command when that is mended", file=sys.stderr)
        return EdgeError.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

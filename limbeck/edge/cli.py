"""The command `limbeck-edge`, on the device."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from limbeck.edge import EdgeError
from limbeck.edge.measure import measure

BENCH = """\
Measure ONNX files on this machine. Each runs in a process of its own; the files take turns, so that what disturbs
the machine disturbs all of them and their ratios hold.

  limbeck-edge bench model.int8.onnx                       a table
  limbeck-edge bench model.fp32.onnx model.int8.onnx       which one is faster here, and how sure that is
  limbeck-edge bench export/phone/*.onnx --json > phone.json

The last one brings the figures of a device into the pipeline: copy phone.json back and write in params.yaml, under
the target,  device: {use: result, file: phone.json}
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit code; what the user can mend is one line on stderr and code 2."""
    parser = argparse.ArgumentParser(
        prog="limbeck-edge",
        description="Limbeck's part on the device: it needs numpy and onnxruntime, nothing else.",
        epilog="`limbeck-edge bench --help` shows examples.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bench = commands.add_parser(
        "bench",
        help="latency, cold start and memory of ONNX files on this machine",
        description=BENCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("files", type=Path, nargs="+", metavar="FILE", help="an ONNX file; several take turns")
    bench.add_argument("--json", action="store_true", help="everything that was measured, as JSON")
    bench.add_argument("--threads", type=_at_least(1), default=1, help="of one inference (default 1)")
    bench.add_argument("--batch-size", type=_at_least(1), default=1, help="samples per inference (default 1)")
    bench.add_argument("--warmup-runs", type=_at_least(0), default=50, help="not counted, per file (default 50)")
    bench.add_argument(
        "--rounds", type=_at_least(3), default=20, help="turns per file; intervals come from them (default 20)"
    )
    bench.add_argument("--runs-per-round", type=_at_least(1), default=100, help="inferences per turn (default 100)")
    bench.set_defaults(run=_bench)
    flags = parser.parse_args(arguments)
    try:
        flags.run(flags)
    except EdgeError as error:
        print(f"limbeck-edge: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"limbeck-edge: {error}", file=sys.stderr)
        return EdgeError.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

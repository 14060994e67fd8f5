"""The command `limbeck-edge`, on the device."""

import argparse
import json
import sys
from pathlib import Path

from limbeck.edge import EdgeError
from limbeck.edge.measure import measure


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
    )
    if flags.json:
        print(json.dumps(measured, indent=2))
        return
    print(f"{measured['machine']['cpu']}, onnxruntime {measured['machine']['onnxruntime']}, {flags.threads} thread(s)")
    print(f"{'file':<16}{'bytes':>12}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'cold ms':>10}{'memory MB':>11}")
    for name, row in measured["variants"].items():
        times = "".join(f"{row[key]['value']:>10.3f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
        print(f"{name:<16}{row['bytes']:>12,}{times}{row['cold_start_ms']:>10.1f}{row['peak_memory_mb']:>11.1f}")


def main() -> None:
    """Run the command; an `EdgeError` is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="limbeck-edge", description="Limbeck's part on the device.")
    commands = parser.add_subparsers(required=True)
    bench = commands.add_parser(
        "bench",
        help="measure ONNX files on this machine",
        description="Measure ONNX files on this machine, taking turns. With --json the answer goes back into the "
        "pipeline: `device: {use: result, file: answer.json}` in params.yaml.",
    )
    bench.add_argument("files", type=Path, nargs="+", metavar="FILE")
    bench.add_argument("--json", action="store_true", help="everything that was measured, as JSON")
    bench.add_argument("--threads", type=int, default=1, help="of one inference (default 1)")
    bench.add_argument("--batch-size", type=int, default=1, help="samples per inference (default 1)")
    bench.add_argument("--warmup-runs", type=int, default=50, help="not counted (default 50)")
    bench.add_argument("--rounds", type=int, default=20, help="turns per file (default 20)")
    bench.add_argument("--runs-per-round", type=int, default=100, help="inferences per turn (default 100)")
    bench.set_defaults(run=_bench)
    flags = parser.parse_args()
    try:
        flags.run(flags)
    except EdgeError as error:
        print(f"limbeck-edge: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

"""`python -m benchmarks [NAME...]`: measure, print, write benchmarks/results/NAME.json."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    agent,
    cold,
    depth,
    drift,
    faults,
    fleet,
    int4,
    int8,
    loops,
    memory,
    noop,
    optimizers,
    ort,
    parts,
    pixels,
    policy,
    prepare,
    recommend,
    refresh,
    search,
    series,
    sparsity,
    text,
    training,
    windows,
)
from benchmarks.places import ROOT, about
from limbeck.atomic import write_json

BENCHMARKS = {
    "agent": agent,
    "cold": cold,
    "depth": depth,
    "drift": drift,
    "faults": faults,
    "fleet": fleet,
    "int4": int4,
    "int8": int8,
    "loops": loops,
    "memory": memory,
    "noop": noop,
    "optimizers": optimizers,
    "ort": ort,
    "parts": parts,
    "pixels": pixels,
    "policy": policy,
    "prepare": prepare,
    "recommend": recommend,
    "refresh": refresh,
    "search": search,
    "series": series,
    "sparsity": sparsity,
    "text": text,
    "training": training,
    "windows": windows,
}
ON_DATA = ("int8", "loops", "series")
LONG = ("drift", "faults", "optimizers", "refresh", "search")
OF_A_RUN = ("int4", "policy", "recommend", "text")
"""Each needs the workspace of its recipe."""


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Of {', '.join(BENCHMARKS)}. Default: all but {', '.join((*LONG, *OF_A_RUN))}, in this order "
            f"({', '.join(ON_DATA)} need $LIMBECK_DATA)."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = ROOT / "benchmarks" / "results",
    quick: Annotated[bool, typer.Option(help="On tests/tiny.yaml: shows that it works, not how fast.")] = False,
) -> None:
    """Measure on an otherwise idle machine; every ratio is of two things measured in this one run."""
    params = ROOT / "tests" / "tiny.yaml" if quick else ROOT / "params.yaml"
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        left_out = {*LONG, *OF_A_RUN, *(() if "LIMBECK_DATA" in os.environ else ON_DATA)}
        for name in names or [name for name in BENCHMARKS if name not in left_out]:
            if name not in BENCHMARKS:
                raise typer.BadParameter(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
            result = BENCHMARKS[name].measure(Path(folder), params)
            command = " ".join(["python -m benchmarks", *(names or []), *(["--quick"] if quick else [])])
            result = {**about(command), "params": str(params.relative_to(ROOT)), **result}
            write_json(out / f"{name}.json", result)
            table = Table(title=name, box=None, title_justify="left")
            for column in ("what", "measured", "limit"):
                table.add_column(column, justify="left" if column == "what" else "right")
            for key, value in result["seconds"].items():
                table.add_row(key, f"{value:.2f} s", "")
            for key, value in result["ratios"].items():
                limit = result["limits"].get(key)
                table.add_row(key, f"{value:.3f}", "" if limit is None else f"{limit:.2f}")
            console.print(table)
            if hasattr(BENCHMARKS[name], "table"):
                print(BENCHMARKS[name].table(result))


if __name__ == "__main__":
    typer.run(main)

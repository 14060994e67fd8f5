"""`limbeck plan` and the pipeline agree on what a file weighs."""

import json
from pathlib import Path

import pytest

from limbeck.selection import FP32, INT8
from tests.pipeline.clones import Clone, copy_of


@pytest.mark.slow
def test_a_plan_foretells_the_bytes_of_what_ships(repeated: Clone, tmp_path: Path) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    done = made.run("limbeck", "plan")
    for target in ("phone", "sensor"):
        sizes = json.loads((made / f"metrics/{target}/export.json").read_text())["bytes"]
        for variant in (FP32, INT8):
            foretold = (made / f".limbeck/plan/{target}/{variant}.onnx").stat().st_size
            assert foretold == sizes[variant]
            assert f"{foretold:,}" in done.stdout

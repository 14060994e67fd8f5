"""What arms share: the spec they are told, the answer they give."""

import json
import sys
from pathlib import Path
from typing import Any

from limbeck.edge.measure import peak_memory_mb


def read_spec() -> tuple[dict[str, Any], Path]:
    """The first argument, and the folder that all arms share."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return spec, Path(spec["place"])


def done(**figures: Any) -> None:
    """Write what was measured, and this process's peak, to the second argument."""
    Path(sys.argv[2]).write_text(json.dumps({**figures, "peak_mb": peak_memory_mb()}), encoding="utf-8")

"""Write the table of docs/device.md from benchmarks/results/faults.json."""

import json
import re

from benchmarks.faults import table
from benchmarks.places import ROOT

PAGE = ROOT / "docs" / "device.md"
found = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
lines = f"{table(found)}\n"
PAGE.write_text(re.sub(r"(?<=\n)\| fault \| .*?\n(?=\n)", lambda _: lines, PAGE.read_text(), flags=re.DOTALL))

"""`python -m benchmarks fleet --quick`: some dozen agents and one MLflow server, present and away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from limbeck.edge.fetch import Patience
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_a_fleet_takes_an_update_at_once_none_is_left_behind_and_none_storms(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "fleet", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = json.loads((tmp_path / "fleet.json").read_text())
    count = found["num_agents"]
    assert count >= 24
    for wave in (found["at once"], found["away"]):
        assert wave["agents"] == count
        assert (wave["left_behind"], wave["said"]) == (0, [])
        assert wave["golden_checks"] == count, "each on its own"
        assert wave["bytes"] > count * 1000
        assert wave["server_peak_mb"] > 100
        assert wave["early"] == 0, "nobody came before Retry-After"
        assert wave["most_in_vain_of_one"] <= Patience().attempts * wave["most_looks_of_one"]
    once, away = found["at once"], found["away"]
    assert once["answered_by_the_servers_log"] >= once["answered"]
    assert away["retries"] >= count, "each met the server overloaded or away"

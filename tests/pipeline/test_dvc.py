"""DVC as DVC users expect it, in fresh clones with caches of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.clones import Clone, clone, copy_of

pytestmark = pytest.mark.slow

NOTHING_RAN = "Data and pipelines are up to date."
PHONE_FROM_PRUNE = [f"{stage}@phone" for stage in ("prune", "quantize", "export", "benchmark", "register")]


@pytest.fixture(scope="session")
def flowed(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone brought up to date by the flow; never changed."""
    made = clone(origin, tmp_path_factory.mktemp("by-flow") / "elsewhere")
    made.flow()
    return made


@pytest.fixture
def mine(repeated: Clone, tmp_path: Path) -> Clone:
    """A copy of one's own of the clone that `dvc repro` brought up to date, committed."""
    made = copy_of(repeated, tmp_path / "limbeck")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=run")
    return made


def qualities(made: Clone) -> dict[str, Any]:
    return {str(file.parent.name): json.loads(file.read_text()) for file in made.folder.glob("metrics/*/quality.json")}


def without_latency(made: Clone) -> dict[str, Any]:
    """Every entry of dvc.lock, less the digests of files that hold measured times."""
    return {
        stage: {
            key: [each for each in value if not each["path"].endswith("latency.json")]
            if key in ("deps", "outs")
            else value
            for key, value in entry.items()
        }
        for stage, entry in made.locked().items()
    }


def ran(output: str) -> list[str]:
    """The stages whose command dvc ran, by its own account."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


def assert_fresh(made: Clone) -> None:
    assert NOTHING_RAN in made.dvc("status").stdout
    before = made.locked()
    done = made.dvc("repro")
    assert ran(done.stdout) == []
    assert NOTHING_RAN in done.stdout
    assert made.locked() == before


def test_flow_and_dvc_reach_the_same_results_in_different_folders(flowed: Clone, repeated: Clone) -> None:
    assert len(repeated.results()) == 3 + 2 * 4
    assert flowed.results() == repeated.results()
    assert set(qualities(repeated)) == {"phone", "sensor"}
    assert qualities(flowed) == qualities(repeated)
    assert without_latency(flowed) == without_latency(repeated), "measured times alone may differ"


def test_after_the_flow_there_is_nothing_left_for_dvc(flowed: Clone, tmp_path: Path) -> None:
    assert_fresh(copy_of(flowed, tmp_path / "limbeck"))


def test_after_dvc_there_is_nothing_left_for_dvc_or_the_flow(repeated: Clone, tmp_path: Path) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    assert_fresh(made)
    before = made.locked()
    done = made.flow()
    assert "0 ran, 15 reused, 0 failed" in done.stdout
    assert made.locked() == before


@pytest.mark.parametrize("by", ["flow", "dvc"])
def test_git_shows_only_what_a_user_should_commit(flowed: Clone, repeated: Clone, by: str) -> None:
    made = flowed if by == "flow" else repeated
    assert made.git("status", "--porcelain").splitlines() == ["?? dvc.lock", "?? metrics/"]


def test_metrics_plots_params_and_graph_can_be_shown(mine: Clone) -> None:
    shown = json.loads(mine.dvc("metrics", "show", "--json").stdout)[""]["data"]
    assert {"metrics/teacher.json", "metrics/phone/quality.json", "metrics/sensor/latency.json"} <= set(shown)
    mine.dvc("plots", "show")
    page = (mine / "dvc_plots/index.html").read_text()
    assert "confusion of the pruned model" in page
    assert "quality on validation by epoch" in page
    edges = mine.dvc("dag", "--dot").stdout
    assert '"prune@phone" -> "quantize@phone"' in edges
    assert '"prune@phone" -> "quantize@sensor"' not in edges


def test_an_experiment_runs_only_its_targets_chain_and_shows_its_differences(mine: Clone) -> None:
    before = mine.results()
    done = mine.dvc("exp", "run", "--set-param", "targets.phone.prune.ratio=0.5")
    assert ran(done.stdout) == PHONE_FROM_PRUNE
    after = mine.results()
    assert {name for name in after if after[name] != before[name]} == set(PHONE_FROM_PRUNE) & set(after)
    params = json.loads(mine.dvc("params", "diff", "--json").stdout)
    assert params == {"params.yaml": {"targets.phone.prune.ratio": {"old": 0.25, "new": 0.5, "diff": 0.25}}}
    metrics = json.loads(mine.dvc("metrics", "diff", "--json").stdout)
    assert metrics["metrics/phone/prune.json"]["macs"]["diff"] < 0
    assert not any("sensor" in name for name in metrics)


def test_pushed_and_pulled_elsewhere_nothing_has_to_run(mine: Clone, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    mine.dvc("remote", "add", "--default", "store", str(remote))
    mine.dvc("push")
    mine.git("commit", "--quiet", "--all", "--message=remote")
    there = clone(mine.folder, tmp_path / "there")
    there.dvc("pull")
    assert_fresh(there)
    assert there.results() == mine.results()


def test_another_distillation_neither_retrains_the_teacher_nor_relabels(mine: Clone) -> None:
    mine.set_params({"targets.phone.distill.alpha": 0.9})
    assert ran(mine.dvc("repro").stdout) == ["distill@phone", *PHONE_FROM_PRUNE]


def test_an_edit_of_the_pruning_runs_prune_and_what_follows(mine: Clone) -> None:
    source = mine / "limbeck/pruning/cutting.py"
    source.write_text(source.read_text() + "\n# edited\n")
    before = mine.results()
    done = mine.dvc("repro")
    assert set(ran(done.stdout)) == {"prune@phone", "prune@sensor"}, "equal bytes end the chain there"
    assert {name: entry["outs"] for name, entry in mine.results().items()} == {
        name: entry["outs"] for name, entry in before.items()
    }
    stale = yaml.safe_load(mine.dvc("status", "--json").stdout)
    assert stale == {}


def test_an_edit_that_changes_the_pruning_runs_everything_after_it(mine: Clone) -> None:
    source = mine / "limbeck/pruning/importances.py"
    text = source.read_text()
    assert text.count("GroupMagnitudeImportance(p=2)") == 1
    source.write_text(text.replace("GroupMagnitudeImportance(p=2)", "RandomImportance()"))
    done = mine.dvc("repro", "export@phone", "export@sensor")
    assert set(ran(done.stdout)) == {
        f"{stage}@{target}" for stage in ("prune", "quantize", "export") for target in ("phone", "sensor")
    }

"""docs/rollout.md: its rules are those of the code, its commands run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from flows.rollout import app
from limbeck.publishing.rollout import Rules
from tests.conftest import ROOT
from tests.pipeline.docs.pages import blocks_of, text_of
from tests.pipeline.docs.test_publishing import environment_of, unknown_flags
from tests.publishing.servers import serving

BLOCKS = [block.text for block in blocks_of("rollout") if block.kind == "sh"]


def test_the_page_shows_every_rule_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", text_of("rollout"), re.MULTILINE)
    told = {name: (yaml.safe_load(f"[{value}]" if "," in value else value), said) for name, value, said in rows}
    rules = Rules().model_dump(mode="json")
    assert told == {name: (rules[name], field.description) for name, field in Rules.model_fields.items()}


@pytest.mark.parametrize("line", [line for text in BLOCKS for line in text.splitlines()])
def test_every_command_and_flag_on_the_page_exists(line: str) -> None:
    if line.startswith("limbeck "):
        assert unknown_flags(line) == set()
    else:
        known = {flag for parameter in typer.main.get_command(app).params for flag in parameter.opts}
        assert {word for word in shlex.split(line) if word.startswith("--")} <= known


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    with serving(tmp_path) as uri:
        variables = environment_of(uri, tmp_path)

        def run(text: str) -> str:
            text = text.replace("--dry-run", f"--dry-run --folder {tmp_path}").replace(
                "python -m", f"cd {ROOT}; python -m"
            )
            done = subprocess.run(
                ["bash", "-euc", text], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True
            )
            return done.stdout

        run("limbeck keys init; limbeck publish digits-phone --serial 1")
        assert "wait: 0 devices use it, 20 are asked for" in run(BLOCKS[0])
        run(BLOCKS[1])
        assert "digits-phone: no canary" in run("python -m flows.rollout --dry-run")

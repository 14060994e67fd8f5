"""docs/publishing.md: its commands exist and run in the order in which they stand there; its tables are those of the code."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

from limbeck import cli
from limbeck.publishing.keys import LIFETIME_DAYS
from tests.pipeline.docs.pages import blocks_of, text_of
from tests.publishing.servers import environment, serving

BLOCKS = [block for block in blocks_of("publishing") if block.kind == "sh"]
LINES = [line for block in BLOCKS for line in block.text.splitlines() if line.startswith("limbeck ")]


@pytest.mark.parametrize("line", LINES)
def test_every_command_and_flag_on_the_page_exists(line: str) -> None:
    _, *words = shlex.split(line)
    command = typer.main.get_command(cli.app)
    while (commands := getattr(command, "commands", None)) is not None:
        command = commands[words.pop(0)]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_page_tells_how_long_metadata_hold_and_where_keys_may_live() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) days \|$", text_of("publishing"), re.MULTILINE)
    assert {role: int(days) for role, days in rows} == LIFETIME_DAYS
    told = set(re.findall(r"`(\w+):`", text_of("publishing")))
    assert told <= set(SIGNER_FOR_URI_SCHEME)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_commands_of_the_page_run(workspace: Path) -> None:
    with serving(workspace) as uri:
        run_the_page(uri, workspace)
    (manifest, *_) = (workspace / "stick/artifacts").rglob("manifest.json")
    rows = re.findall(r"^\| ((?:`\w+`,? ?)+) \|", text_of("publishing"), re.MULTILINE)
    told = {key for row in rows for key in re.findall(r"`(\w+)`", row)} - set(LIFETIME_DAYS)
    optional = {"output", "opset", "tolerance"}  # the small exports of tests leave them out
    assert set(json.loads(manifest.read_text())) | optional == told


def run_the_page(uri: str, workspace: Path) -> None:
    (workspace / "bin").mkdir()
    (workspace / "bin/limbeck").write_text(f'#!/bin/sh\nexec {sys.executable} -m limbeck.cli "$@"\n')
    (workspace / "bin/limbeck").chmod(0o755)
    variables = environment(uri)
    variables["PATH"] = f"{workspace}/bin:{variables['PATH']}"
    for block in BLOCKS:
        if not block.is_example:
            subprocess.run(["bash", "-euc", block.text], cwd=workspace, env=variables, check=True)

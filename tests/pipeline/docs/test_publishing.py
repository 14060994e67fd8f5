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
from limbeck.tracking.server import open_client
from tests.pipeline.docs.pages import blocks_of, text_of
from tests.publishing.servers import environment, serving
from tests.tracking.conftest import MODEL

BLOCKS = [block for block in blocks_of("publishing") if block.kind == "sh"]
LINES = [line for block in BLOCKS for line in block.text.splitlines() if line.startswith("limbeck ")]


@pytest.mark.parametrize("line", LINES)
def test_every_command_and_flag_on_the_page_exists(line: str) -> None:
    assert unknown_flags(line) == set()


def unknown_flags(line: str) -> set[str]:
    """Flags in a line of `limbeck ...` that its command does not have."""
    _, *words = shlex.split(line)
    command = typer.main.get_command(cli.app)
    while (commands := getattr(command, "commands", None)) is not None:
        command = commands[words.pop(0)]
    known = {flag for parameter in command.params for flag in parameter.opts}
    return {word for word in words if word.startswith("--")} - known


def test_the_page_tells_how_long_metadata_hold_and_where_keys_may_live() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) days \|$", text_of("publishing"), re.MULTILINE)
    assert {role: int(days) for role, days in rows} == LIFETIME_DAYS
    told = set(re.findall(r"`(\w+):`", text_of("publishing")))
    assert told <= set(SIGNER_FOR_URI_SCHEME)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    with serving(tmp_path) as uri:
        open_client(uri).set_registered_model_alias(MODEL, "champion", "1")  # what the page's canary is newer than
        run_the_page(uri, tmp_path)
    (manifest, *_) = (tmp_path / "stick/artifacts").rglob("manifest.json")
    rows = re.findall(r"^\| ((?:`\w+`,? ?)+) \|", text_of("publishing"), re.MULTILINE)
    told = {key for row in rows for key in re.findall(r"`(\w+)`", row)} - set(LIFETIME_DAYS)
    assert set(json.loads(manifest.read_text())) == told


def environment_of(uri: str, folder: Path) -> dict[str, str]:
    """Variables with which a page's commands run as a reader types them."""
    (folder / "bin").mkdir()
    (folder / "bin/limbeck").write_text(f'#!/bin/sh\nexec {sys.executable} -m limbeck.cli "$@"\n')
    (folder / "bin/limbeck").chmod(0o755)
    variables = environment(uri)
    variables["PATH"] = f"{folder}/bin:{variables['PATH']}"
    return variables


def run_the_page(uri: str, folder: Path) -> None:
    variables = environment_of(uri, folder)
    for block in BLOCKS:
        if not block.is_example:
            subprocess.run(["bash", "-euc", block.text], cwd=folder, env=variables, check=True)

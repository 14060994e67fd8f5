"""What the pages tell a user to type works as it stands there."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.clones import Clone, copy_of

pytestmark = pytest.mark.slow

PAGES = {page.stem: page for page in (ROOT / "docs").glob("*.md")}
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["report"])
def test_every_command_of_a_page_works(repeated: Clone, tmp_path: Path, page: str) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=run")
    commands = "".join(BLOCK.findall(PAGES[page].read_text()))
    assert commands
    made.run("bash", "-euxc", commands)

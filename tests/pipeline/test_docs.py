"""What the pages tell a user to type works as it stands there, in the order in which it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.pipeline.clones import Clone, copy_of

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["data", "report"])
def test_every_command_of_a_page_works(repeated: Clone, tmp_path: Path, page: str) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=run")
    blocks = BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text())
    assert blocks
    for kind, text in blocks:
        if kind == "sh":
            made.run("bash", "-euxc", text)
        else:
            values = merged(yaml.safe_load((made / "params.yaml").read_text()), yaml.safe_load(text))
            (made / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with a page's section in its place; a component is replaced as a whole."""
    return values | {
        key: merged(values[key], new) if isinstance(new, dict) and "use" not in new and key in values else new
        for key, new in changes.items()
    }

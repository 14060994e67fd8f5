"""What docs/data.md and docs/report.md tell a user to type works as it stands there, in the order of the page."""

from pathlib import Path

import pytest
import yaml

from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of, into

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["data", "report"])
def test_every_command_of_a_page_works(repeated: Clone, tmp_path: Path, page: str) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message=run")
    blocks = [block for block in blocks_of(page) if block.kind in ("sh", "yaml")]
    assert blocks
    for kind, _, text in blocks:
        if kind == "sh":
            made.run("bash", "-euxc", text)
        else:
            values = into(yaml.safe_load((made / "params.yaml").read_text()), yaml.safe_load(text))
            (made / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

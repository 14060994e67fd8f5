"""The flow `refresh` of a challenger that has passed and sat its exam: what is left is to ask, and to ship."""

import os
from pathlib import Path
from typing import Any

import yaml

import flows.refresh as module
from flows import environment
from flows.refreshing import rounds
from flows.refreshing.climbing import Refresh
from limbeck.refresh.story import Story
from tests.conftest import ROOT, TINY
from tests.refresh.stories import judged, story, tried

HOME = "LIMBECK_TEST_HOME"
SHIPPED = "shipped.txt"


class Asks(Refresh):
    """Nobody else changes the champion; what ships is written down."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{**more, "run_stages": lambda *_: None})

    def begin(self, *_: Any, **__: Any) -> str:
        return "no new window: nothing to do"

    def overtaken(self, told: Story) -> str:
        return ""

    def serve(self, told: Story, place: Path, why: str) -> str:
        with (self.base / SHIPPED).open("a") as file:
            print(why, file=file)
        return self.end(told, "champion", why)


def prepare(home: Path, name: str, hours: float) -> dict[str, Any]:
    """A workspace with such a story; parameters of a flow run that asks about it."""
    base, rules = home / name, yaml.safe_load((ROOT / "refresh.yaml").read_text())
    base.mkdir(parents=True)
    rules["ship"] |= {"approval": "ask", "approval_hours": hours}
    (base / "refresh.yaml").write_text(yaml.safe_dump(rules))
    (base / "params.yaml").write_text(TINY.read_text().replace("name: tiny", f"name: {name}"))
    place = home / f"work/refresh/{name}-phone/0001"
    place.mkdir(parents=True)
    story(tried("norms", "passed"), model=f"{name}-phone", exam=judged(True), data="d").write(place)
    return {"target": ["phone"], "folder": str(base), "rules": str(base / "refresh.yaml")}


rounds.Refresh = Asks  # type: ignore[misc]
if HOME in os.environ:
    environment.ROOT = Path(os.environ[HOME])
refresh = module.refresh

import json
import subprocess
from pathlib import Path
from typing import Any

from limbeck.tracking.lineage import git_state, lineage

LOCK = {
    "stages": {
        "prepare": {"cmd": "p", "outs": [{"path": "data", "md5": "1"}]},
        "teacher": {
            "cmd": "t",
            "deps": [{"path": "data", "md5": "1"}],
            "outs": [{"path": "models/teacher", "md5": "2"}],
        },
        "export@a": {
            "cmd": "e",
            "deps": [{"path": "models/teacher", "md5": "2"}],
            "outs": [{"path": "export/a", "md5": "3"}],
        },
        "export@b": {
            "cmd": "e",
            "deps": [{"path": "data/train", "md5": "9"}],
            "outs": [{"path": "export/b", "md5": "4"}],
        },
    }
}


def changed(stage: str, key: str, value: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(LOCK))
    copy["stages"][stage][key] = value
    return copy


def test_lineage_changes_with_an_ancestor_and_with_nothing_else() -> None:
    own = lineage(LOCK, "export@a")
    assert lineage(changed("prepare", "cmd", "q"), "export@a") != own
    assert lineage(changed("export@b", "cmd", "q"), "export@a") == own
    shuffled = {"stages": dict(reversed(LOCK["stages"].items()))}
    assert lineage(shuffled, "export@a") == own
    inside = lineage(LOCK, "export@b")  # depends on a folder inside an out
    assert lineage(changed("prepare", "cmd", "q"), "export@b") != inside


def test_a_stage_that_is_not_in_the_lock_has_no_lineage() -> None:
    assert lineage({}, "export@a") == "none"


def test_without_a_commit_the_lineage_says_so(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert git_state(tmp_path) == ("none", "true")


def test_what_the_run_itself_writes_makes_nothing_dirty(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "dvc.lock").write_text("new")
    head, dirty = git_state(tmp_path)
    assert (len(head), dirty) == (40, "false")
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert git_state(tmp_path) == (head, "true")

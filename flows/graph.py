"""dvc.yaml as DVC resolves it. The only file that touches DVC's Python interface (`Repo.index.graph` is not public)."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limbeck.components import NONE, nearest
from limbeck.errors import LimbeckError, ParamsError


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, templates resolved. Defaults of `meta`: no retry, a day, beside others.

    `exclusive: true` asks for the machine alone, `exclusive_when: prune.latency` where the target has a value there.
    """

    name: str
    desc: str = ""
    upstream: tuple[str, ...] = ()
    retries: int = 0
    timeout_s: float = 86_400.0
    exclusive: bool = False

    @property
    def kind(self) -> str:
        """The `prune` of `prune@phone`."""
        return self.name.partition("@")[0]

    @property
    def target(self) -> str | None:
        """The `phone` of `prune@phone`."""
        return self.name.partition("@")[2] or None


@dataclass(frozen=True)
class Step:
    """What a run would do with a stage, and why."""

    stage: Stage
    verdict: Literal["run", "may run", "fresh"]
    why: tuple[str, ...] = ()


def load(workspace: Path, targets: Iterable[str] | None = None, until: str | None = None) -> tuple[Stage, ...]:
    """Read the stages in topological order: upstream before downstream, ties in dvc.yaml's order.

    Args:
        workspace: folder with dvc.yaml, params.yaml and .dvc.
        targets: keep only these targets' stages and what they need; None keeps everything.
        until: keep nothing behind this stage, `benchmark` say.

    Raises:
        ParamsError: a target or stage that dvc.yaml and params.yaml do not have.
        LimbeckError: DVC cannot read the pipeline; the message is DVC's own.

    """
    with _repo(workspace) as repo:
        graph = repo.index.graph
        nodes = [node for node in repo.index.stages if getattr(node, "name", None)]  # a .dvc file has no name
        values = _values(workspace)
        stages = [_stage(node, [up.name for up in graph.successors(node) if up in nodes], values) for node in nodes]
    ordered = order(stages)
    chosen = ordered if targets is None else select(ordered, tuple(targets))
    return chosen if until is None else up_to(chosen, until)


def changed(workspace: Path) -> dict[str, tuple[str, ...]]:
    """What `dvc status` holds against each stage, in words; fresh stages are absent.

    Raises:
        LimbeckError: DVC cannot read the pipeline; the message is DVC's own.

    """
    with _repo(workspace) as repo:
        status = repo.status()
        locked = _locked_stages(workspace)
    return {
        name.rpartition(":")[2]: tuple(_words(entries)) if name.rpartition(":")[2] in locked else ("never run",)
        for name, entries in status.items()
    }


def order(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Sort so that every stage comes after its upstream, and as before otherwise."""
    waiting = list(stages)
    done: dict[str, Stage] = {}
    while waiting:
        stage = next(stage for stage in waiting if all(up in done for up in stage.upstream))
        done[stage.name] = stage
        waiting.remove(stage)
    return tuple(done.values())


def select(stages: tuple[Stage, ...], targets: tuple[str, ...]) -> tuple[Stage, ...]:
    """Keep the stages of some targets and everything upstream of them.

    Raises:
        ParamsError: no stage belongs to a target.

    """
    known = list(dict.fromkeys(stage.target for stage in stages if stage.target))
    for target in targets:
        if target not in known:
            raise ParamsError(f"no target {target!r}; {nearest(target, known)}")
    return _closure(stages, {stage.name for stage in stages if stage.target in targets})


def up_to(stages: tuple[Stage, ...], kind: str) -> tuple[Stage, ...]:
    """Keep the stages of a kind, `benchmark` of every target say, and everything upstream of them.

    Raises:
        ParamsError: there is none.

    """
    wanted = {stage.name for stage in stages if stage.kind == kind}
    if not wanted:
        raise ParamsError(f"no stage {kind!r}; {nearest(kind, list(dict.fromkeys(stage.kind for stage in stages)))}")
    return _closure(stages, wanted)


def _closure(stages: tuple[Stage, ...], wanted: set[str]) -> tuple[Stage, ...]:
    """These stages and everything upstream of them."""
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.upstream)
    return tuple(stage for stage in stages if stage.name in wanted)


def plan(stages: tuple[Stage, ...], changed: Mapping[str, tuple[str, ...]]) -> tuple[Step, ...]:
    """Say what a run would do: a changed stage runs, and what stands below it may.

    Downstream of a stage that runs nothing is certain: when it gives the same bytes again, DVC stops there.

        prepare --> teacher --> label --> distill@T --> prune@T        changed = {"label": ("code modified",)}
        fresh       fresh       run       may run       may run

    Args:
        stages: in topological order.
        changed: the reasons by stage, as `changed` gives them.

    """
    steps: dict[str, Step] = {}
    for stage in stages:
        moving = tuple(up for up in stage.upstream if up in steps and steps[up].verdict != "fresh")
        if stage.name in changed:
            steps[stage.name] = Step(stage, "run", changed[stage.name])
        elif moving:
            steps[stage.name] = Step(stage, "may run", tuple(f"after {up}" for up in moving))
        else:
            steps[stage.name] = Step(stage, "fresh")
    return tuple(steps.values())


@contextmanager
def _repo(workspace: Path) -> Iterator[Any]:
    """Open the repository, its errors turned into ours."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # its remarks on locks of killed runs are not the user's
    if not (workspace / ".dvc").is_dir():
        raise LimbeckError(f"{workspace} is no DVC project (no .dvc folder); run in the project's folder.")
    try:
        with Repo(str(workspace), _wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        raise LimbeckError(f"DVC cannot read {workspace / 'dvc.yaml'}: {error}") from error


def _values(workspace: Path) -> dict[str, Any]:
    import yaml

    file = workspace / "params.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}


def _stage(node: Any, upstream: list[str], values: Mapping[str, Any]) -> Stage:
    meta = node.meta or {}
    target = values.get("targets", {}).get(node.name.partition("@")[2])
    return Stage(
        name=node.name,
        desc=node.desc or "",
        upstream=tuple(sorted(upstream)),
        retries=int(meta.get("retries", 0)),
        timeout_s=float(meta.get("timeout_s", Stage.timeout_s)),
        exclusive=bool(meta.get("exclusive", False)) or _has(target, meta.get("exclusive_when")),
    )


def _has(target: Any, keys: str | None) -> bool:
    """Whether a target has a value at dotted keys, none of whose sections is `{use: none}`."""
    value = target if keys else None
    for key in keys.split(".") if keys else ():
        if not isinstance(value, dict) or value.get("use") == NONE:
            return False
        value = value.get(key)
    return value is not None


def _locked_stages(workspace: Path) -> set[str]:
    import yaml

    lock = workspace / "dvc.lock"
    return set(yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]) if lock.exists() else set()


def _words(entries: list[Any]) -> Iterable[str]:
    """`[{"changed deps": {"params.yaml": {"seed": "modified"}}}]` -> `seed modified`."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        for changes in entry.values():
            for path, what in changes.items():
                if isinstance(what, dict):
                    yield from (f"{key} {verb}" for key, verb in what.items())
                else:
                    yield f"{path} {what}"

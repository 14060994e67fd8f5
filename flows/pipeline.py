"""One flow; every stage of dvc.yaml is one task, the edges are those of the resolved graph alone.

    flow `compress` --- task `prepare` --- task `teacher` --- task `label` --+-- task `distill@phone`  --- ...
                                                                            +-- task `distill@sensor` --- ...

A task brings its stage up to date with `dvc repro --single-item` (`running`), when its upstream is and the
machine has a place (`machine`). DVC alone decides what is stale: Prefect's result cache is off, and a stage
that DVC calls fresh costs no process. Only crashes are tried again.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console

from flows import environment, graph, guard, workspace
from flows.display import Board, view
from flows.graph import Stage
from flows.machine import Machine, Stopped
from flows.running import Runner, StageCrashed, StageFailed
from limbeck import params as params_file
from limbeck.errors import LimbeckError
from limbeck.params import Params
from limbeck.tracking.server import tracking_uri

REFRESH_S = 0.25
REPLAY_S = 1.0


class PipelineFailed(LimbeckError):
    """Stages failed; `exit_code` is the highest of theirs."""

    def __init__(self, failures: Mapping[str, StageFailed], not_started: list[str]) -> None:
        lines = [f"{name} failed: {failure.cause}" for name, failure in failures.items()]
        if not_started:
            lines.append(f"Not started for that: {', '.join(not_started)}.")
        super().__init__("\n".join(lines))
        self.failures, self.not_started = dict(failures), not_started
        self.exit_code = max((failure.exit_code for failure in failures.values()), default=1)


@flow(name="compress", persist_result=False)
def compress(
    target: list[str] | None = None,
    recipe: str | None = None,
    folder: Path | None = None,
    jobs: int | None = None,
    show: bool = False,
    until: str | None = None,
) -> Any:
    """Bring the pipeline up to date: distil, prune, quantize, export, measure and register.

    Args:
        target: only these targets; all of them when empty.
        recipe: run recipes/NAME.yaml in work/NAME instead of the project's params.yaml.
        folder: another workspace's folder.
        jobs: stages side by side; as many as there are processors when empty.
        show: keep the terminal informed (the command line does).
        until: go no further than this stage, `benchmark` say.

    Raises:
        ParamsError: params.yaml, a target or the recipe is not right; nothing was started.
        PipelineFailed: a stage failed; everything that does not depend on it went on.
    """
    return _Run(target or None, workspace.locate(recipe, folder), jobs, show, until).execute()


@task(persist_result=False, cache_policy=NO_CACHE)
def stage_task(run: "_Run", stage: Stage) -> str:
    """Bring one stage up to date. Called with the stage's name and retries, see `_Run.execute`."""
    return run.bring_up_to_date(stage)


class _Run:
    """One run of the flow."""

    def __init__(
        self, targets: list[str] | None, folder: Path, jobs: int | None, show: bool, until: str | None = None
    ) -> None:
        environment.settle()  # a worker imports this file without the command around it
        self.params: Params = params_file.load(folder / "params.yaml")
        self.folder = folder
        self.stages = graph.load(folder, targets, until)
        self.steps = {step.stage.name: step for step in graph.plan(self.stages, graph.changed(folder))}
        self.machine = Machine(jobs or os.cpu_count() or 1)
        self.board = Board(folder, self.stages)
        self.console = Console(quiet=not show, width=None if sys.stdout.isatty() else 100)
        self.failures: dict[str, StageFailed] = {}
        self.stopped = threading.Event()
        self.group = str(flow_run.get_id() or uuid4())
        self.uri = tracking_uri(self.params.tracking.uri, folder)
        self.runner: Runner

    def execute(self) -> State[Any]:
        """Submit every stage, watch until all ended, report."""
        # A worker's mark ends things with the worker; stages end with their flow.
        inherited = os.environ.get(guard.MARK, "")
        own = None if guard.is_ours(inherited) else guard.start()
        mark = own.environment if own else {guard.MARK: inherited}
        self.runner = Runner(self.folder, environment.for_stages(group=self.group, mark=mark, uri=self.uri))
        try:
            # A thread for every stage: a task that waits for its upstream or for a place holds one.
            pool: ThreadPoolTaskRunner[str] = ThreadPoolTaskRunner(max_workers=len(self.stages))
            with self._signals(), self._replaying(), pool:
                self._wait(self._submit(pool))
            return self._conclude()
        finally:
            if own:
                own.close()

    def _submit(self, pool: ThreadPoolTaskRunner[str]) -> dict[str, PrefectFuture[str]]:
        futures: dict[str, PrefectFuture[str]] = {}
        for stage in self.stages:
            named = stage_task.with_options(
                name=stage.name,
                task_run_name=stage.name,
                description=stage.desc,
                retries=stage.retries,
                retry_condition_fn=_crashed,
            )
            upstream = [futures[name] for name in stage.upstream if name in futures]
            futures[stage.name] = pool.submit(named, parameters={"run": self, "stage": stage}, wait_for=upstream)
        return futures

    def _wait(self, futures: dict[str, PrefectFuture[str]]) -> None:
        with view(self.board, self.console) as shown:
            for name, future in futures.items():
                ended = _event_of(future)
                while not ended.wait(REFRESH_S):
                    shown.refresh()
                if self.board.rows[name].state == "waiting":
                    self.board.end(name, "not started")

    def bring_up_to_date(self, stage: Stage) -> str:
        """The body of a stage's task.

        Raises:
            StageFailed: and StageCrashed, which is tried again.
        """
        log = get_run_logger()
        context = TaskRunContext.get()
        attempt = context.task_run.run_count if context else 1
        try:
            if self.steps[stage.name].verdict == "fresh" and self._is_registered(stage):
                self.board.end(stage.name, "reused")
                log.info("reused: nothing it depends on changed")
                return "reused"
            with self.machine.use(alone=stage.exclusive):
                self.board.begin(stage.name, f"attempt {attempt}" if attempt > 1 else "")
                outcome = self.runner.run(stage, log.info, attempt=attempt)
                if outcome.how == "reused" and not self._is_registered(stage):
                    log.info("DVC restored the decision, the registry does not have it: registering")
                    outcome = self.runner.run(stage, log.info, attempt=2, force=True)
        except Stopped:
            self.board.end(stage.name, "interrupted")
            raise
        except Exception as error:  # a full disk below our own log, too, fails the stage and not silently the flow
            failure = error if isinstance(error, StageFailed) else StageFailed(stage.name, repr(error), 1)
            self.failures[stage.name] = failure
            self.board.end(stage.name, "failed", failure.cause)
            raise
        self.failures.pop(stage.name, None)
        self.board.end(stage.name, outcome.how)
        log.info("%s in %.1f s", outcome.how, outcome.seconds)
        return outcome.how

    def _is_registered(self, stage: Stage) -> bool:
        """Whether the registry knows what a register stage decided; True for every other stage.

        DVC restores a decision from its cache without anything having been registered.
        """
        decision = self.folder / "registry" / f"{stage.target}.json"
        if stage.kind != "register" or not decision.exists():
            return True
        from limbeck.tracking import registry

        decided = json.loads(decision.read_text(encoding="utf-8"))
        name = f"{self.params.name}-{stage.target}"
        return registry.is_registered(name, decided["identity"], uri=self.uri, variant=decided["variant"])

    @contextmanager
    def _replaying(self) -> Iterator[None]:
        """Carry what stages record into MLflow while they run, beside the flow: importing it takes seconds.

        With nothing to carry nothing is imported.
        """
        ended = threading.Event()

        def replay() -> None:
            from limbeck.tracking.runs import Replayer

            replayer = Replayer(
                self.folder / ".limbeck/spool",
                uri=self.uri,
                experiment=self.params.tracking.experiment,
                group=self.group,
            )
            while not ended.wait(REPLAY_S):
                replayer.poll()
            replayer.poll()
            replayer.close()

        thread = threading.Thread(target=replay, name="replay", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into an orderly end: every stage's group is ended, nothing new starts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            for name, handler in before.items():
                signal.signal(name, handler)  # a second signal is not held up
            self.stopped.set()
            self.machine.stop()
            # Not here: a handler may interrupt the very code that holds the runner's lock.
            threading.Thread(target=self.runner.stop, name="stop").start()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _conclude(self) -> State[Any]:
        if self.stopped.is_set():
            return Cancelled(message="Interrupted; the same command goes on from here.")
        ran, reused = self.board.count("ran"), self.board.count("reused")
        summary = f"{ran} ran, {reused} reused, {len(self.failures)} failed"
        self.console.print(f"\n{summary}", highlight=False)
        self._report()
        left = [row.name for row in self.board.rows.values() if row.state not in ("ran", "reused", "failed")]
        if self.failures or left:
            failed = PipelineFailed(self.failures, left)
            return Failed(message=str(failed), data=failed)
        return Completed(message=summary, data=summary)

    def _report(self) -> None:
        """Render the report, show it and publish it as artifacts."""
        try:
            from limbeck import report
            from limbeck.tracking.runs import attach

            rendered = report.render(self.folder, self.folder / "reports")
        except Exception as error:  # what the stages did, and the exit code, do not depend on a picture of it
            if not isinstance(error, LimbeckError):
                get_run_logger().exception("the report failed")
            self.console.print(f"No report: {error}", highlight=False, markup=False, soft_wrap=True)
            return
        self.console.print(rendered.console)
        reports = [path for path in (self.folder / "reports").iterdir() if path.is_file()]
        try:
            attach(reports, uri=self.uri, experiment=self.params.tracking.experiment, group=self.group)
            create_markdown_artifact(rendered.markdown, key="report", description="the run's report")
            create_table_artifact(
                _verdicts(self.folder), key="verdicts", description="contract clauses by target and variant"
            )
        except Exception:  # nor on whether it could be hung up somewhere
            get_run_logger().exception("the report was not published")


def _event_of(future: PrefectFuture[str]) -> threading.Event:
    """Set when the future is done. (Its own `wait` raises what the task raised.)"""
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    return ended


def _verdicts(folder: Path) -> list[dict[str, Any]]:
    """Every clause of every target as a row."""
    from limbeck.report import gather

    return [
        {"target": target.name, "variant": variant, **asdict(clause)}
        for target in gather(folder)
        for variant, clauses in target.clauses.items()
        for clause in clauses
    ]


def _crashed(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether a failed task is worth another try."""
    return isinstance(state.result(raise_on_failure=False), StageCrashed)

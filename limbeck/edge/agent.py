"""The model of this device, swapped under a running application.

    from limbeck.edge.agent import Agent

    with Agent("home") as agent:
        logits = agent.predict(images)      # [B, K]; from any thread

What an agent opens is verified; what it opens new is on probation; what fails there goes back, and is reported.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError, bundle, durable, spool, tokenizer
from limbeck.edge.home import Home
from limbeck.edge.session import open_session
from limbeck.edge.usage import Usage, softmax

if TYPE_CHECKING:
    import subprocess

TICK_S = 0.5
FLUSH_S = 10.0


class Answer(NamedTuple):
    """A class and the probability the model gives it."""

    label: str
    confidence: float


class _Model:
    """An opened bundle. Who holds it may go on using it, whatever serves now."""

    def __init__(self, home: Home, key: str) -> None:
        self.key = key
        self.manifest = bundle.read(home.bundle(key))
        try:
            self.session = open_session(home.bundle(key) / self.manifest.model_file, self.manifest.threads)
        except Exception as error:
            raise EdgeError(f"{key} cannot be opened: {' '.join(str(error).split())}") from None
        self.tokenizer = tokenizer.read(home.bundle(key) / tokenizer.NAME) if self.manifest.has_tokenizer else None
        self.usage = Usage()
        self.opened = time.monotonic()
        self.on_probation = False
        self.since = 0.0  # of the switch to it, as the record says
        self.report_name = spool.new_name(key)

    def fit(self, batch: NDArray[Any] | Sequence[str]) -> NDArray[Any]:
        """The batch as the runtime takes it.

        Raises:
            EdgeError: another type or shape, a value that is no finite number, or texts that cannot be read.
        """
        if isinstance(batch, str | bytes):
            raise EdgeError(f"{self.manifest.name} takes several texts at once; give it a list: [{batch[:20]!r}].")
        if not isinstance(batch, np.ndarray) and len(batch) and isinstance(batch[0], str | bytes):
            if self.tokenizer is None:
                raise EdgeError(f"{self.manifest.name} takes no texts: its bundle has no {tokenizer.NAME}.")
            batch = tokenizer.encode_all(self.tokenizer, batch)
        found = np.ascontiguousarray(batch)
        m = self.manifest
        if (
            found.dtype.name != m.dtype
            or found.shape[1:] != m.shape
            or found.ndim != 1 + len(m.shape)
            or not len(found)
        ):
            raise EdgeError(
                f"{m.name} takes {m.dtype} [batch, {', '.join(map(str, m.shape))}], raw; found {found.dtype} {list(found.shape)}."
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            wrong = np.unravel_index(int(np.flatnonzero(~np.isfinite(found))[0]), found.shape)
            raise EdgeError(
                f"{m.name}: the value at {[int(place) for place in wrong]} is {found[wrong]}; expected finite numbers. Leave "
                "that sample out, or mend its sensor."
            )
        return found


class Agent:
    """Answers with this device's current model; updates, probation and reports go on beside it.

    Args:
        home: the device's state folder (`limbeck-edge init`).
        updates: look for updates on schedule, each in a process of its own. False where a `limbeck-edge run` or a
            timer does that: a switch is noticed in any case.

    Raises:
        EdgeError: the folder was not provisioned, or holds no model that can be opened.
    """

    def __init__(self, home: Path | str, *, updates: bool = True) -> None:
        self._home = Home(home)
        self._swapping = threading.RLock()
        self._stopped = threading.Event()
        self._seen: Any = None
        self._left: set[tuple[str, float]] = set()  # keys that failed in this process, each with its switch
        self._baseline: float | None = None
        self._updating: subprocess.Popen[bytes] | None = None
        self._flushed = self._reported = time.monotonic()
        self._model = self._open()
        self._check_due = time.monotonic() + self._first_look_s() if updates else float("inf")
        self._thread = threading.Thread(target=self._mind, name="limbeck-edge", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def serial(self) -> int:
        """Of the version that serves."""
        return self._model.manifest.serial

    @property
    def manifest(self) -> bundle.Manifest:
        """Of the version that serves: classes, shapes, contract."""
        return self._model.manifest

    def hold(self) -> Any:
        """`with agent.hold():` says 'not now': nothing new is tried out or switched to meanwhile.

        Going back from a version that fails is not held up.
        """
        return self._home.hold()

    def predict(self, batch: NDArray[Any] | Sequence[str]) -> NDArray[np.float32]:
        """Logits [B, K] for raw samples [B, ...] or a list of B texts, from the version that served when the call began.

        A version on probation that raises or answers NaN is left at once, and the one before answers instead.

        Raises:
            EdgeError: the batch has another type or shape or holds NaN or infinity, a text cannot be read, or the model fails and
                there is none to go back to.

        """
        model, given = self._model, batch
        batch = model.fit(given)
        started = time.perf_counter_ns()
        try:
            logits: NDArray[np.float32] = model.session.run(None, {model.manifest.input_name: batch})[0]
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            model.usage.note_error(type(error).__name__)
            if model.on_probation and self._go_back(model, why):
                return self.predict(given)  # the version before may have another tokenizer
            raise EdgeError(f"{model.key} cannot answer: {why}") from error
        model.usage.note(time.perf_counter_ns() - started, batch, logits)
        broken = model.on_probation and not np.isfinite(logits).all() and bool(np.isfinite(batch).all())
        if broken and self._go_back(model, "it answered with what is no finite number"):
            return self.predict(given)
        return logits

    def classify(self, batch: NDArray[Any] | Sequence[str]) -> list[Answer]:
        """The likeliest class of each sample [B, ...], or of each of B texts, with its probability; see `predict`."""
        model = self._model
        probabilities_BK = softmax(self.predict(batch))
        classes = model.manifest.classes
        return [Answer(classes[int(row.argmax())], float(row.max())) for row in probabilities_BK]

    def close(self) -> None:
        """Stop looking for updates and write down what was counted. Harmless twice."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._thread.join()
        if self._updating is not None and self._updating.poll() is None:
            self._updating.terminate()  # it may be killed at any time
            self._updating.wait()
        model = self._model
        with _noted("the end of a version's use could not be written down"):
            model.usage.digest()
            self._close_report(model)
            if model.on_probation:
                with self._home.edit() as record:
                    if record.current == model.key and record.on_probation:
                        record.starts = max(0, record.starts - 1)

    def _open(self) -> _Model:
        """The current bundle, or the one before when it cannot be opened or takes processes down."""
        with _noted("reports of dead processes could not be closed"):
            spool.close_stale(self._home)
        record = self._home.read()
        if record.current is None:
            raise EdgeError(
                f"{self._home.path} holds no model yet. Next: limbeck-edge update --home {self._home.path}, or with "
                "--from STICK."
            )
        self._seen = self._stamp()
        if record.on_probation:
            with _noted("the start of a version on probation could not be written down"), self._home.edit() as record:
                record.starts += 1
        key, crashes = record.current, record.starts - 1
        assert key is not None  # an edit never empties it
        try:
            if record.on_probation and record.previous and crashes >= self._home.device.settings.max_starts:
                raise EdgeError(f"{crashes} processes that used it ended without closing it.")
            model = _Model(self._home, key)
        except EdgeError as error:
            if record.previous is None:
                raise
            _warn("%s; going back to %s", error, record.previous)
            model = _Model(self._home, record.previous)
            with _noted("going back could not be written down"):
                self._write_back(key, str(error))
            return model
        model.on_probation, model.since = record.on_probation, record.since
        return model

    def _first_look_s(self) -> float:
        """A fleet that gets its power back does not knock in step: each device has its moment in a tenth of the schedule."""
        if not self._home.device.server:
            return float("inf")
        return int(self._home.device.id, 16) % 10_000 / 1e5 * self._home.device.settings.check_every_s

    def _stamp(self) -> Any:
        try:
            found = os.stat(self._home.path / "state.json")
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _mind(self) -> None:
        """The agent's own thread: notices switches, digests, judges, reports, starts updates."""
        while not self._stopped.wait(TICK_S):
            for action in (self._follow, self._digest, self._judge, self._report, self._update):
                with _noted(f"{action.__name__.strip('_')} failed; inference goes on"):
                    action()

    def _follow(self) -> None:
        """Swap when the record points elsewhere."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        record = self._home.read()
        model = self._model
        if record.current in (None, model.key):
            model.on_probation, model.since = record.on_probation and record.current == model.key, record.since
        elif (record.current, record.since) in self._left:
            pass  # going back is not written down yet, or could not be
        elif self._home.is_held():
            return
        else:
            self._swap()
        self._seen = stamp

    def _swap(self) -> None:
        with self._swapping:
            before, record = self._model, self._home.read()
            if (record.current, record.since) in self._left:  # since we looked
                return
            try:
                after = self._open()
            except EdgeError as error:
                _warn("%s; %s goes on", error, before.key)
                return
            if after.key == before.key:
                return
            enough = before.usage.confidence.count >= self._home.device.settings.min_answers
            self._baseline = before.usage.confidence.mean if enough else None
            self._model = after
        before.usage.digest()
        self._close_report(before)

    def _digest(self) -> None:
        model = self._model
        looked = model.usage.digest()
        settings = self._home.device.settings
        if settings.samples_below is not None:
            for confidence, sample in looked:
                if confidence < settings.samples_below:
                    self._keep_sample(model, confidence, sample)

    def _keep_sample(self, model: _Model, confidence: float, sample: NDArray[Any]) -> None:
        """A raw sample for the operator, who switched that on; so many a day, over all processes."""
        day = time.strftime("%Y%m%d", time.gmtime())
        counter = self._home.path / "samples.json"
        with self._home.locked("samples", wait=True):
            try:
                kept = durable.read_json(counter)
            except (OSError, ValueError):
                kept = {}
            if kept.get("day") != day:
                kept = {"day": day, "count": 0}
            if kept["count"] >= self._home.device.settings.samples_per_day:
                return
            durable.write_json(counter, {"day": day, "count": kept["count"] + 1})
        spool.keep_sample(self._home, model.key, confidence, sample)

    def _judge(self) -> None:
        """Commit a version that held its probation, or go back."""
        model, settings = self._model, self._home.device.settings
        if not model.on_probation:
            return
        usage, limit = model.usage, model.manifest.max_p95_ms
        latency = usage.latency.get(str(model.manifest.batch_size))
        if limit is not None and latency is not None and latency.count >= settings.min_answers:
            p95 = latency.quantile(0.95)
            if p95 > settings.latency_slack * limit:
                self._go_back(
                    model,
                    f"p95 {p95:.3g} ms in use, more than {settings.latency_slack:g} times the contract's {limit:g} ms",
                )
                return
        confidence = usage.confidence
        if usage.calls < settings.min_answers or time.monotonic() - model.opened < settings.window_s:
            return
        drop = 0.0 if self._baseline is None else self._baseline - confidence.mean
        if drop > settings.max_confidence_drop:
            self._go_back(
                model,
                f"its mean confidence is {confidence.mean:.2f}, that of the version before was {self._baseline:.2f}",
            )
            return
        with self._home.edit() as record:
            if record.current == model.key and record.on_probation:
                record.commit()
                spool.tell(self._home, "committed", model.key, f"{usage.calls} calls without a fault")
        model.on_probation = False
        self._home.tidy(self._home.read())

    def _go_back(self, model: _Model, why: str) -> bool:
        """Leave a version on probation for the one before; False when there is none."""
        with self._swapping:
            if self._model is not model:  # another thread did
                return True
            record = self._home.read()
            is_ours = record.current == model.key  # else another process went back, or further
            key = record.previous if is_ours else record.current
            if key is None:
                _warn("serial %d fails (%s), and there is none before it", model.manifest.serial, why)
                model.on_probation = False
                return False
            try:
                after = _Model(self._home, key)
            except EdgeError as error:
                _warn("%s", error)
                return False
            if not is_ours:
                after.on_probation, after.since = record.on_probation, record.since
            self._left.add((model.key, model.since))
            self._model = after
        _warn("serial %d went back to %d: %s", model.manifest.serial, self.serial, why)
        model.on_probation = False
        with _noted("going back could not be written down; this process does not return to it"):
            self._write_back(model.key, why)
        with _noted("its use could not be written down"):
            model.usage.digest()
            self._close_report(model)
        return True

    def _write_back(self, key: str, why: str) -> None:
        with self._home.edit() as record:
            if record.current == key and record.previous is not None:
                record.go_back(why)
                spool.tell(self._home, "reverted", key, why)

    def _report(self) -> None:
        """Keep what was counted on disk, and close a report when it is time."""
        now, model = time.monotonic(), self._model
        if now - self._flushed < FLUSH_S:
            return
        self._flushed = now
        if now - self._reported < self._home.device.settings.report_every_s:
            self._write_report(model)
            return
        self._reported = now
        if not model.on_probation:  # judged by what it did since the switch
            self._close_report(model)
            model.usage, model.report_name = Usage(), spool.new_name(model.key)

    def _write_report(self, model: _Model) -> None:
        if model.usage.calls or model.usage.errors:
            dropped = spool.bound(self._home)
            report = {**spool.header(self._home, "usage", model.key), "dropped": dropped, **model.usage.report()}
            durable.write_json(self._home.spool / f"{model.report_name}{spool.OPEN}", report, indent=None)

    def _close_report(self, model: _Model) -> None:
        self._write_report(model)
        path = self._home.spool / f"{model.report_name}{spool.OPEN}"
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_suffix(".json"))

    def _update(self) -> None:
        """Start the process that updates, when it is time; it carries what the serving one must not."""
        now, ended = time.monotonic(), self._updating is not None and self._updating.poll() is not None
        if ended:
            self._updating = None
        elif now < self._check_due or self._updating is not None:
            return
        import subprocess

        from limbeck.edge import schedule  # with `random`, which a process that never updates does without

        settings = self._home.device.settings
        self._check_due = now + settings.check_every_s  # also when the record cannot be read
        record = self._home.read()
        self._check_due = now + schedule.until_next_s(settings, record, time.time())
        if ended or schedule.asked_s(record, time.time()):
            return
        command = [sys.executable, "-m", "limbeck.edge.cli", "update", "--home", str(self._home.path), "--quiet"]
        self._updating = subprocess.Popen(command, stdin=subprocess.DEVNULL)


def _warn(message: str, *values: object) -> None:
    import logging  # most processes never need it

    logging.getLogger("limbeck.edge").warning(message, *values)


@contextlib.contextmanager
def _noted(what: str) -> Any:
    """Nothing that goes on beside inference may end it: a full disk, a folder that turned read-only."""
    try:
        yield
    except Exception as error:
        _warn("%s: %s", what, error)


Loop = Callable[[Agent, threading.Event], None]
"""An application: `limbeck-edge run --app FILE:FUNCTION` calls it with the agent and an event that says stop."""

"""A person's yes, asked for in Prefect's pages: the flow run waits for a form.

    a deployment's run     is suspended: no process, no place of the deployment, no turn of the model is held. The form resumes
                           it, on whichever worker, and `limbeck.refresh.story` says what it had come to.
    any other run          is paused: its process waits, for there is no worker to begin it again.

A deployment's run is not paused, because Prefect 3.8 takes its place from it and then ends it, minutes later, for having none.
A form and not a mere resuming, because a run is also resumed when it is tried again after a crash.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout, ObjectNotFound
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import ValidationError

from flows.refreshing.standing import Waits
from limbeck.refresh.story import Asked, Story

POLL_S = 10


class Answer(RunInput):
    """The form."""

    ship: bool


class NotYet(Waits):
    """Nobody was asked yet: a run does what it can before it waits."""


class Approval:
    """Asks for one flow run.

    Args:
        hours: for which a yes is waited for.
        say: told what happens.

    """

    def __init__(self, hours: float, say: Callable[[str], None]) -> None:
        self.hours, self.say = hours, say
        self.may_wait = False
        self.own = str(flow_run.get_id())

    def __call__(self, story: Story, keep: Callable[[], None]) -> str:
        """Why a story's challenger may not ship; empty where a person said yes.

        Raises:
            Waits: another run was asked and has no answer yet; or this one is not to wait yet (`may_wait`).
            Pause: of Prefect: this run ends here, and begins again when it is resumed.

        """
        asked = story.asked_for
        if asked is not None and asked.by != self.own:
            if why := self._of_others(asked):
                return why
            asked = None
        if asked is None and not self.may_wait:
            raise NotYet(f"refresh {story.number} passed and waits for a yes")
        form = Answer.with_initial_data(description=f"May refresh {story.number} of {story.model} ship?")
        self.say(
            f"{story.model}: refresh {story.number} waits for a yes; resume flow run {flow_run.get_name()} in Prefect"
        )
        if deployment.get_id() is None:
            return self._paused(form)
        is_first = asked is None
        if asked is None:
            asked = story.asked_for = Asked(by=self.own, since=datetime.now(UTC))
            keep()
        try:
            answer: Any = suspend_flow_run(
                wait_for_input=form, timeout=self.seconds, key=f"{asked.since:%Y%m%d-%H%M%S-%f}"
            )
        except ValidationError:
            if is_first:
                raise
            story.asked_for = None  # begun again without an answer, by a person or after a crash
            return self(story, keep)
        return _why_not(answer)

    def _paused(self, form: type[Answer]) -> str:
        try:
            answer: Any = pause_flow_run(
                wait_for_input=form, timeout=self.seconds, poll_interval=min(POLL_S, self.seconds)
            )
        except FlowPauseTimeout:
            self.say(self.silence)
            return self.silence
        return _why_not(answer)

    def _of_others(self, asked: Asked) -> str:
        """What became of another run that asked: why its challenger may not ship; empty where it is to be asked anew.

        Raises:
            Waits: it has no answer yet, or goes on with one.

        """
        with get_client(sync_client=True) as client:
            try:
                run = client.read_flow_run(UUID(asked.by))
            except ObjectNotFound:  # it ran on another server
                return ""
        state = run.state
        if state is None or state.is_crashed() or state.is_completed():
            return ""
        if state.is_cancelled() or state.is_cancelling():
            return "a person said no"
        if state.is_failed() or (state.is_paused() and datetime.now(UTC) - asked.since > timedelta(hours=self.hours)):
            return self.silence
        raise Waits(f"waits for a yes since {asked.since:%Y-%m-%d %H:%M} UTC; resume flow run {run.name} in Prefect")

    @property
    def seconds(self) -> int:
        """For which a yes is waited for."""
        return max(1, int(3600 * self.hours))

    @property
    def silence(self) -> str:
        """Why not, where nobody answered."""
        return f"nobody said yes within {self.hours:g} h"


def _why_not(answer: Answer) -> str:
    return "" if answer.ship else "a person said no"

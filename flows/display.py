"""What the terminal shows while stages run: a live list, or one plain line per change where there is no terminal."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.graph import Stage
from flows.running import read_status, same_run

State: TypeAlias = Literal["waiting", "running", "ran", "reused", "failed", "not started", "interrupted"]

ICONS: dict[str, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "running": ("▶", "cyan"),
    "ran": ("✓", "green"),
    "reused": ("=", "blue"),
    "failed": ("✗", "red"),
    "not started": ("–", "dim"),
    "interrupted": ("■", "yellow"),
}


@dataclass
class Row:
    """One stage as it stands. Written by its task alone, read by the display."""

    name: str
    state: State = "waiting"
    seconds: float = 0.0
    note: str = ""
    began: float = 0.0
    before: dict[str, Any] | None = field(default=None, repr=False)


class Board:
    """All stages of a run, in order.

    Args:
        workspace: where the status files lie.
        stages: in the order to show.
    """

    def __init__(self, workspace: Path, stages: Iterable[Stage]) -> None:
        self.workspace = workspace
        self.rows = {stage.name: Row(stage.name) for stage in stages}

    def begin(self, name: str, note: str = "") -> None:
        """A stage's process starts."""
        row = self.rows[name]
        row.before, row.began, row.note = read_status(self.workspace, name), time.monotonic(), note
        row.state = "running"

    def end(self, name: str, state: State, note: str = "") -> None:
        """A stage ended, or will never start."""
        row = self.rows[name]
        row.seconds, row.note = (time.monotonic() - row.began if row.began else 0.0), note
        row.state = state

    def count(self, state: State) -> int:
        """How many stages are in a state."""
        return sum(row.state == state for row in self.rows.values())

    def progress(self, row: Row) -> tuple[int, int, str] | None:
        """Done, total and note of a running stage, from its status file."""
        status = read_status(self.workspace, row.name)
        if status is None or same_run(row.before, status) or not status.get("progress"):
            return None
        progress = status["progress"]
        return int(progress["done"]), int(progress["total"]), str(progress.get("note") or "")


class LiveView:
    """The list, redrawn in place."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board = board
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        self._live.stop()

    def refresh(self) -> None:
        """Draw the board as it stands now."""
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", width=8)
        table.add_column(width=16)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for row in self.board.rows.values():
            icon, style = ICONS[row.state]
            seconds, bar, note = row.seconds, Text(""), row.note.split("\n")[0]
            shown: Any = bar
            if row.state == "running":
                seconds = time.monotonic() - row.began
                progress = self.board.progress(row)
                if progress:
                    done, total, words = progress
                    shown, note = ProgressBar(total=max(total, 1), completed=done, width=16), words or note
            if row.state in ("ran", "reused", "not started", "interrupted") and not note:
                note = row.state
            table.add_row(
                Text(icon, style),
                Text(row.name, style),
                f"{seconds:.1f} s" if seconds else "",
                shown,
                Text(note, "dim"),
            )
        return table


class PlainView:
    """One line per change."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board = board
        self._console = console
        self._shown: dict[str, str] = {}

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Print what changed since the last look."""
        for row in self.board.rows.values():
            state = row.state
            if state == self._shown.get(row.name, "waiting"):
                continue
            self._shown[row.name] = state
            timing = f" in {row.seconds:.1f} s" if state in ("ran", "failed") else ""
            note = f" ({row.note})" if row.note else ""
            self._console.print(f"{row.name}: {state}{timing}{note}", highlight=False, markup=False, soft_wrap=True)


def view(board: Board, console: Console) -> LiveView | PlainView:
    """The view that suits the console."""
    return LiveView(board, console) if console.is_terminal else PlainView(board, console)

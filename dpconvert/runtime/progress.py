"""Reports progress: a bar with rate and remaining time on a terminal, an occasional plain line elsewhere.

Below the bar stands a second line for a short state, such as losses, so that the bar keeps its numbers in 80 columns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from dpconvert.errors import cut, printable, without_secrets

EVERY = 15.0  # seconds between plain lines
NUMBERS = 55  # columns that the bar, the count, the rate and the time left need, beside the unit
NAME = "{task.description}"
LEAST_NAME = 12  # columns of the name before them
LEAST_NUMBERS = 24  # columns that the count and the time left need, on terminals without room for more


class Advance(Protocol):
    """Called with the number of units just finished, and optionally a short state such as "loss 0.53"."""

    def __call__(self, count: int = 1, state: str = "", /) -> None: ...


class Reporter:
    """Prints progress and notes to a stream; nothing at all if `quiet`, or only notes with `notes`."""

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, name: str = "", notes: bool = False
    ) -> None:
        self.quiet = quiet
        self.notes = notes or not quiet
        self.stream = stream or sys.stderr
        self.name = name
        self._console: Console | None = None
        self._known: set[str] = set()

    def named(self, name: str) -> Reporter:
        """A reporter for one of several things at a time: plain lines that begin with its name, and no bars."""
        return Reporter(quiet=self.quiet, stream=self.stream, name=name, notes=self.notes)

    def note(self, text: str) -> None:
        """Print one line, unless notes are hidden. Control characters are escaped, and passwords in URLs hidden."""
        if not self.notes:
            return
        text = printable(without_secrets(cut(f"{self.name}: {text}" if self.name else text)))
        if self._console is not None:  # above the bar
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def once(self, text: str, key: str | None = None) -> None:
        """Print one line as `note` does, unless one of this key, by default the line itself, was printed before."""
        key = text if key is None else key
        if key not in self._known:
            self._known.add(key)
            self.note(text)

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0, unit: str = "samples") -> Iterator[Advance]:
        """Progress of one task. `done` units were finished before, and do not count for the rate."""
        what = printable(what)
        if self.quiet or total == done:
            yield _nothing
        elif self.stream.isatty() and not self.name:
            yield from self._live(what, total, done, unit)
        else:
            yield from self._plain(what, total, done, unit)

    def _live(self, what: str, total: int, done: int, unit: str) -> Iterator[Advance]:
        self._console = Console(file=self.stream)
        numbers, columns = NUMBERS + len(unit), _columns(unit, done)
        if self._console.width < numbers + LEAST_NAME:
            numbers, columns = LEAST_NUMBERS, (TextColumn(NAME, markup=False), MofNCompleteColumn(), columns[-1])
        try:
            with _ProgressBar(*columns, console=self._console) as live:
                name = _shortened(what, self._console.width - numbers)
                task = live.add_task(name, total=total, completed=done, state="")

                def advance(count: int = 1, state: str = "", /) -> None:
                    live.update(task, advance=count, state=state or live.tasks[0].fields["state"])

                yield advance
        finally:
            self._console = None

    def _plain(self, what: str, total: int, done: int, unit: str) -> Iterator[Advance]:
        start = last = time.monotonic()
        position, latest = done, ""

        def advance(count: int = 1, state: str = "", /) -> None:
            nonlocal position, last, latest
            position += count
            latest = state or latest
            now = time.monotonic()
            if now - last >= EVERY and position < total:
                last = now
                rate = (position - done) / (now - start)
                left = clock((total - position) / rate) if rate else "unknown"
                suffix = f", {latest}" if latest else ""
                self.note(f"{what}: {position} of {total} {unit}, {rate:.1f} {unit}/s, {left} left{suffix}")

        yield advance


class _ProgressBar(Progress):
    """A bar with the state of its task below it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["state"]:
                yield Padding(Text(task.fields["state"]), (0, 0, 0, 2))


def _columns(unit: str, done: int) -> tuple[ProgressColumn, ...]:
    return (
        TextColumn(NAME, markup=False),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Rate(done),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def _shortened(name: str, room: int) -> str:
    """The name, with an ellipsis in its middle where the numbers leave it too little room."""
    room = max(LEAST_NAME, room)
    return name if len(name) <= room else f"{name[: room // 2]}…{name[-(room - room // 2 - 1) :]}"


class _Rate(ProgressColumn):
    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done

    def render(self, task: Task) -> Text:
        rate = (task.completed - self.done) / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s each")


def clock(seconds: float) -> str:
    """5 -> '0:05', 3700 -> '1:01:40'."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _nothing(count: int = 1, state: str = "", /) -> None:
    pass

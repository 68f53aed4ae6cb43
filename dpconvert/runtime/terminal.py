"""How both programs speak and end: lines for people, one JSON document for programs, a mistake in one line."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from dpconvert.errors import OutputError, UsageError, UserError, printable
from dpconvert.runtime.checks import Check

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
QUIET = click.option("--quiet", "-q", is_flag=True, help="Hide progress.")
AGAIN = 0.02  # seconds until a lost Ctrl-C is repeated
GAP, NARROWEST, LEFT_OUT = 2, 10, "..."  # of the columns of a table
NUMBER = re.compile(r"-?\d+(\.\d+)?|")
INTERRUPTED = 130  # the exit status that shells use after Ctrl-C, and ours after SIGTERM, too


class FolderPath(click.Path):
    """A path that help shows as DIR, whatever is checked of it."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "DIR"


def together(*options: Decorator) -> Decorator:
    """Combine several decorators into one. `--help` shows their options in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Detailed(click.Command):
    """A command whose `--help` fits one screen: the options named in `rarely` appear only with `--help-all`."""

    def __init__(self, *args: Any, rarely: Container[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in self._options():
            option.hidden = option.hidden or option.name in rarely
        text = "Also show rarely needed options."
        show = click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=self._all, help=text
        )
        self.params.append(show)

    def _options(self) -> Iterator[click.Option]:
        return (parameter for parameter in self.params if isinstance(parameter, click.Option))

    def _all(self, context: click.Context, _option: click.Parameter, requested: bool) -> None:
        if requested:
            hidden = [option for option in self._options() if option.hidden]
            for option in hidden:
                option.hidden = False
            click.echo(self.get_help(context))
            for option in hidden:
                option.hidden = True
            context.exit()


@contextmanager
def ended(program: str, stopped: str) -> Iterator[None]:
    """Run a whole program: an exception that ends it becomes one line on stderr and an exit status.

    The status is 1 for a user's error, 2 for a wrong command line, and 130 after Ctrl-C or the SIGTERM of a batch
    system, which print `stopped`.
    """
    _open_closed_streams()
    interrupts: list[int] = []
    try:
        with _recorded(interrupts):
            yield
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        if interrupts or isinstance(error, (KeyboardInterrupt, click.Abort)):
            click.echo(err=True)
            say(f"{program}: {stopped}")
            exec("")  # Python remembers a Ctrl-C in evaluated text, as of a dataclass, and would end by the signal
            sys.exit(INTERRUPTED)
        if isinstance(error, click.ClickException):
            error.show()
            sys.exit(error.exit_code)
        if isinstance(error, OSError) and _is_of_stdout(error):
            error = OutputError(f"cannot be written: {error.strerror}", where="standard output")
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            error = UsageError("a name that is longer than this system allows", where=error.filename)
        if not isinstance(error, UserError):
            raise
        say(f"{program}: error: {error}", bold=True)
        sys.exit(1)


def _open_closed_streams() -> None:
    """Discard what is written to a stream that the shell has closed (`>&-`), whose number another file would get."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if number == 0 else "w"))


def _is_of_stdout(error: OSError) -> bool:
    """Whether an error is that of printing a result: click writes nothing else."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__") == "click.utils"


@contextmanager
def _recorded(interrupts: list[int]) -> Iterator[None]:
    """Note each Ctrl-C and SIGTERM before it interrupts: libraries can replace the KeyboardInterrupt by an error.

    One that arrives while Python runs a callback of the garbage collector is lost there. It is repeated by a signal,
    which also ends a wait that is under way. A signal that the caller ignores or handles stays as it is.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    def lost(ignored: sys.UnraisableHookArgs) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
        elif sys.unraisablehook is lost:
            again = threading.Timer(AGAIN, signal.pthread_kill, (threading.get_ident(), next(iter(handlers))))
            again.daemon = True
            again.start()

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    handlers = {number: handler for number, handler in usual.items() if signal.getsignal(number) is handler}
    before, sys.unraisablehook = sys.unraisablehook, lost
    for number in handlers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        # a second one while the first is reported ends the program at once, without a traceback
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if interrupts else handler)
        sys.unraisablehook = before


def tell(text: str) -> None:
    """Print one line on stdout, with control characters escaped."""
    click.echo(printable(text))


def say(text: str, *, bold: bool = False) -> None:
    """Print one line on stderr; a `bold` one is red on a terminal that shows colours."""
    text = printable(text)
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    click.echo(text if plain else click.style(text, fg="red" if bold else None), err=True)


def document(result: Any, indent: int | None = None) -> None:
    """Print a command's result as JSON: with `--json`, the only thing on stdout."""
    click.echo(json.dumps(result, indent=indent))


def answer(lines: Iterable[str], result: Any, *, as_json: bool) -> None:
    """Print the lines, or with `as_json` the result that they were made from."""
    if as_json:
        document(result)
        return
    for text in lines:
        for line in text.split("\n"):
            tell(line)


def table(head: list[str], rows: list[list[Any]], *, whole: int | None = None) -> None:
    """Print aligned columns, with numbers to the right.

    On a terminal, long texts are shortened in the middle so that every column fits; lines of tables that would not fit
    even so are wrapped by the terminal. whole: a column that is never shortened.
    """
    cells = [[printable(str(cell)) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [_is_numeric([row[i] for row in rows]) for i in range(len(head))]
    if sys.stdout.isatty():
        fixed = [r or i == whole for i, r in enumerate(right)]
        widths = _narrowed(widths, head, fixed, shutil.get_terminal_size().columns)
    for row in cells:
        short = [_shortened(cell, width) for cell, width in zip(row, widths, strict=True)]
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(short, widths, right, strict=True)]
        click.echo("  ".join(aligned).rstrip())


def _is_numeric(column: list[Any]) -> bool:
    """Whether the column holds numbers and empty cells only."""
    return any(cell != "" for cell in column) and all(
        isinstance(cell, int) or NUMBER.fullmatch(str(cell)) for cell in column
    )


def _narrowed(widths: list[int], head: list[str], fixed: list[bool], limit: int) -> list[int]:
    """The widths of columns that fit the terminal, the widest made narrower first; as they were if none do."""
    narrow = list(widths)
    while sum(narrow) + GAP * (len(narrow) - 1) > limit:
        can = [i for i, width in enumerate(narrow) if not fixed[i] and width > max(NARROWEST, len(head[i]))]
        if not can:
            return widths
        narrow[max(can, key=lambda i: narrow[i])] -= 1
    return narrow


def _shortened(text: str, width: int) -> str:
    """The text with its middle left out if it is longer than the width."""
    if len(text) <= width:
        return text
    left = (width - len(LEFT_OUT)) // 2
    return text[:left] + LEFT_OUT + text[len(text) - (width - len(LEFT_OUT) - left) :]


def examined(checks: Iterable[Check], *, as_json: bool) -> None:
    """Print the checks of a `doctor`, each as soon as it is done. The exit status is 1 if one failed."""
    results = []
    for check in checks:
        results.append(check)
        if not as_json:
            remedy = check.remedy and f"; {check.remedy}"
            tell(f"{'ok' if check.ok else 'PROBLEM':8}{check.name}: {check.found}{remedy}")
    if as_json:
        document([vars(check) for check in results])
    if not all(check.ok for check in results):
        sys.exit(1)

"""How both programs speak and end: lines for people, one JSON document for programs, a mistake in one line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from dpconvert.errors import UserError, printable
from dpconvert.runtime.checks import Check

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress.")
INTERRUPTED = 130  # exit status, as shells give it after Ctrl-C


def together(*options: Decorator) -> Decorator:
    """One decorator of several, whose options appear in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Detailed(click.Command):
    """A command whose `--help` fits a screen: options that are `rarely` needed, by name, appear with `--help-all`."""

    def __init__(self, *args: Any, rarely: Container[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in self._options():
            option.hidden = option.hidden or option.name in rarely
        text = "Show all options: also what few need."
        show = click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=self._all, help=text
        )
        self.params.append(show)

    def _options(self) -> Iterator[click.Option]:
        return (parameter for parameter in self.params if isinstance(parameter, click.Option))

    def _all(self, context: click.Context, _option: click.Parameter, asked: bool) -> None:
        if asked:
            hidden = [option for option in self._options() if option.hidden]
            for option in hidden:
                option.hidden = False
            click.echo(self.get_help(context))
            for option in hidden:
                option.hidden = True
            context.exit()


@contextmanager
def ended(program: str, stopped: str) -> Iterator[None]:
    """Around a whole program: what stops it becomes a line on stderr and an exit status.

    1 for what a user got wrong, 2 for a wrong command line, 130 after Ctrl-C, which is answered with `stopped`.
    """
    try:
        yield
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        say(f"{program}: error: {error}", bold=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        say(f"{program}: {stopped}")
        sys.exit(INTERRUPTED)


def tell(text: str) -> None:
    """One line on stdout, whatever control characters a name in it holds."""
    click.echo(printable(text))


def say(text: str, *, bold: bool = False) -> None:
    """One line on stderr, a bold one in red on a terminal that shows colours."""
    text = printable(text)
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    click.echo(text if plain else click.style(text, fg="red" if bold else None), err=True)


def document(found: Any, indent: int | None = None) -> None:
    """What a command found, for programs: the only thing that it writes to stdout."""
    click.echo(json.dumps(found, indent=indent))


def answer(lines: Iterable[str], found: Any, *, as_json: bool) -> None:
    """The lines, or for programs what they were made of."""
    if as_json:
        document(found)
        return
    for text in lines:
        for line in text.split("\n"):
            tell(line)


def table(head: list[str], rows: list[list[Any]]) -> None:
    """Plain aligned columns: numbers to the right; cut to the terminal's width only on a terminal."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(isinstance(row[i], int) for row in rows) for i in range(len(head))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for row in cells:
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        tell("  ".join(aligned).rstrip()[:limit])


def examined(checks: Iterable[Check], *, as_json: bool) -> None:
    """What a doctor finds, each line when it is known. Exit status 1 if something does not work."""
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            remedy = check.remedy and f"; {check.remedy}"
            tell(f"{'ok' if check.ok else 'PROBLEM':8}{check.name}: {check.found}{remedy}")
    if as_json:
        document([vars(check) for check in found])
    if not all(check.ok for check in found):
        sys.exit(1)

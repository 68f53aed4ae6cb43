"""The programs in, docs/reference/commands.md out: `make docs`. A test holds the page against the programs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from dpconvert.cli import group as dpconvert
from mtrain.cli import group as mtrain

PAGE = Path(__file__).parent / "reference" / "commands.md"
PROGRAMS = {"dpconvert": dpconvert, "mtrain": mtrain}
HEAD = """# Commands

Written by `make docs` from the programs themselves; `PROGRAM COMMAND --help` prints the same.

Both exit with 0 when everything asked for is there, 1 after an error of one line on stderr, 2 when the command line
itself is wrong, and 130 when they were interrupted.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name, group in PROGRAMS.items() for line in _program(name, group))])


def _program(name: str, group: click.Group) -> Iterator[str]:
    yield f"## {name}\n"
    yield from _description(group)
    commands = dict(group.commands)
    if name == "dpconvert":
        source = group.get_command(click.Context(group), "lung")
        assert source is not None
        yield from _command(f"{name} SOURCE", source)
    for verb, command in sorted(commands.items()):
        yield from _command(f"{name} {verb}", command)


def _command(title: str, command: click.Command) -> Iterator[str]:
    yield f"### {title}\n"
    yield from _description(command)
    context = click.Context(command)
    parameters = [p for p in command.get_params(context) if "--help" not in p.opts]
    arguments = [f"`{p.make_metavar(context)}`" for p in parameters if isinstance(p, click.Argument)]
    if arguments:
        yield f"Arguments: {', '.join(arguments)}\n"
    options = [p for p in parameters if isinstance(p, click.Option)]
    if options:
        yield "| option | |\n|---|---|"
        yield from (_option(option, context) for option in options)
        yield ""


def _description(command: click.Command) -> Iterator[str]:
    """Paragraphs as they are; those that click must not wrap, and examples, as code."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            yield "```text\n" + paragraph.removeprefix("\b").strip("\n") + "\n```\n"
        elif paragraph.startswith("Example:"):
            yield f"```text\n{paragraph}\n```\n"
        else:
            yield " ".join(paragraph.split()) + "\n"


def _option(option: click.Option, context: click.Context) -> str:
    hidden, option.hidden = option.hidden, False
    record = option.get_help_record(context)
    option.hidden = hidden
    assert record is not None
    names, text = (part.replace("|", "\\|") for part in record)
    return f"| `{names}` | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page())

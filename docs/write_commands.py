"""Writes docs/reference/commands.md from the programs: `make docs`. A test compares the page with the programs."""

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

This page lists every command and option. `make docs` generates it from the programs; `PROGRAM COMMAND --help` prints
the same text. Where a command has `--help-all`, it also prints the options that few users need.

| exit status | meaning |
|---|---|
| 0 | everything requested was done, and nothing is missing |
| 1 | an error, reported in one line on stderr; or something is missing or wrong, as the output states |
| 2 | an invalid command line |
| 130 | interrupted |
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
        source.help = (source.help or "").replace("Convert lung into", "Convert SOURCE into")
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
        yield "| option | description |\n|---|---|"
        yield from (_option(option, context) for option in options)
        yield ""


def _description(command: click.Command) -> Iterator[str]:
    """The paragraphs of the help; examples, and paragraphs that click must not wrap, as code."""
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

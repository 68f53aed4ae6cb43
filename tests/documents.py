"""The commands in README and docs: those in blocks of the language `console` are run, all others are parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import click

from dpconvert.cli import group as dpconvert
from dpconvert.errors import UserError
from mtrain.cli import group as mtrain

ROOT = Path(__file__).parent.parent
PROGRAMS = {"dpconvert": dpconvert, "mtrain": mtrain}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^`([\w.-]+)`:\n\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(?:dpconvert|mtrain) .*$", re.MULTILINE)
ASSIGNMENT = re.compile(r"[A-Z_]+=")


class Line(NamedTuple):
    """`text` without its comment; `run`: whether its page promises that it works as it stands, with `status`.

    shown: the lines of output that the page shows below it; `...` stands for any text.
    """

    page: str
    text: str
    run: bool
    status: int = 0
    shown: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def tree() -> dict[str, list[str]]:
    """Package -> the folders and modules listed under it in the README's tree, from top to bottom."""
    listed: dict[str, list[str]] = {}
    package = ""
    readme = (ROOT / "README.md").read_text()
    for line in readme.partition("## Where things are")[2].partition("## More")[0].splitlines():
        if found := re.match(r" {4}(dpconvert|mtrain)/ ", line):
            package = found[1]
        elif package and (names := re.match(r" {6}((?:[a-z0-9_]+(?:\.py|/) ?)+)", line)):
            listed.setdefault(package, []).extend(names[1].split())
    return listed


def pages() -> list[Path]:
    """README, CONTRIBUTING and every page of docs."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def lines(page: Path) -> Iterator[Line]:
    """The command lines of a page, in order; those of console blocks without their `$ `."""
    text, name = page.read_text(), page.relative_to(ROOT).as_posix()
    for language, block in FENCE.findall(text):
        commands = list(_commands(block.replace("\\\n", " ")))
        for number, line in enumerate(commands):
            prompt = line.startswith("$ ")
            if prompt or language in ("bash", "sh"):
                plain = _plain(line.removeprefix("$ "))
                shown = takewhile(lambda text: not text.startswith("$ "), commands[number + 1 :]) if prompt else ()
                yield Line(name, plain, prompt and language == "console", _status(line), tuple(shown))
    for line in INDENTED.findall(FENCE.sub("", text)):
        yield Line(name, _plain(line), run=False)


def not_said(line: Line, output: str) -> list[str]:
    """The lines that a page shows below a command and that the output lacks; numbers and widths may be others."""
    said = [_comparable(text) for text in output.splitlines()]
    shown = [text for text in line.shown if text.strip(" .")]
    patterns = [re.escape(_comparable(text)).replace(r"\.\.\.", ".*") for text in shown]
    return [
        text for text, pattern in zip(shown, patterns, strict=True) if not any(map(re.compile(pattern).fullmatch, said))
    ]


def _comparable(text: str) -> str:
    return re.sub(r"\d+", "0", " ".join(text.split()))


def files(page: Path) -> dict[str, str]:
    """Name -> content of the files that a page shows: a block under a line that is a name and a colon."""
    return dict(NAMED.findall(page.read_text()))


def programs_in(line: Line) -> Iterator[tuple[str, list[str]]]:
    """(program, arguments) of each of our programs that a line starts, under whatever starts it (torchrun, srun)."""
    words = line.words
    while words and ASSIGNMENT.match(words[0]):
        words = words[1:]
    for number, word in enumerate(words):
        called = word in PROGRAMS and (number == 0 or words[0] in ("srun", "torchrun", "ssh", "docker", "nohup"))
        if called:
            yield word, words[number + 1 :]
            return


def problem(program: str, arguments: list[str]) -> str | None:
    """What the program would not understand of these arguments; nothing is run and no file is looked for."""
    group = PROGRAMS[program]
    plain = [word for word in arguments if not word.startswith("-")]
    if arguments and arguments[0] in ("--help", "-h", "--version"):
        return None
    if not plain:
        return "no command"
    name = arguments[0]
    source = program == "dpconvert" and (name.endswith(".toml") or name == "my-source")
    try:
        command = group.resolve_command(click.Context(group), ["lung" if source else name])[1]
        if command is None:
            return f"no command {name}"
        command.make_parser(click.Context(command)).parse_args(arguments[1:])
    except (click.UsageError, UserError) as error:
        return str(error)
    return None


def _commands(block: str) -> Iterator[str]:
    """The lines of a block; those between quotes belong to the line that opened them."""
    pending: list[str] = []
    for line in block.splitlines():
        pending.append(line)
        try:
            shlex.split("\n".join(pending))
        except ValueError:  # a quotation that goes on, or an apostrophe in what a program answers
            if pending[0].startswith("$ "):
                continue
        yield "\n".join(pending)
        pending.clear()
    assert not pending, f"a quotation without an end: {pending[0]}"


def _status(line: str) -> int:
    """What the comment `# exit status N` announces."""
    found = re.search(r"# exit status (\d+)$", line)
    return int(found[1]) if found else 0


def _plain(line: str) -> str:
    return re.sub(r"\s+#\s.*$", "", line.strip())

"""Every command of the documents: understood by the programs, and run, in its page's order, where it has a prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import PROGRAMS, ROOT, Line, files, lines, pages, problem, programs_in

RUN = [page for page in pages() if any(line.run for line in lines(page))]


def test_a_command_that_does_not_exist_is_found() -> None:
    assert problem("dpconvert", ["lungs-of-a-whale"])
    assert problem("mtrain", ["fit", "--no-such-option"])
    assert problem("mtrain", ["fit", "--leave-out"])
    assert problem("mtrain", ["fit", "--leave-out", "Lung"]) is None
    assert problem("dpconvert", ["my.toml", "--out", "shards/"]) is None


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_is_understood(page: Path) -> None:
    wrong = [
        f"{line.text}: {found}"
        for line in lines(page)
        for program, arguments in programs_in(line)
        if (found := problem(program, arguments))
    ]
    assert not wrong


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_shown_with_a_prompt_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    for line in lines(page):
        if line.run:
            _run(line)


def _run(line: Line) -> None:
    """Our programs in this process (each start of torch costs seconds), anything else in a shell.

    They start no processes of their own, unless the line says so: those would import all of it again.
    """
    started = list(programs_in(line))
    if not started:
        subprocess.run(line.text, shell=True, check=True, capture_output=True)
    for program, arguments in started:
        try:
            alone = {arguments[0]: {"workers": 1 if program == "dpconvert" else 0}}
            status = PROGRAMS[program].main(arguments, standalone_mode=False, default_map=alone) or 0
        except SystemExit as stop:
            status = stop.code
        assert status == line.status, line.text

"""What holds for every command at the terminal: `--json`, `--quiet`, colours, help, completion; and the doctors."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from dpconvert import doctor
from dpconvert.cli import group as dpconvert
from dpconvert.cli import source_command
from dpconvert.errors import UserError
from dpconvert.runtime import locks, terminal
from dpconvert.runtime.progress import Reporter
from mtrain import doctor as training_doctor
from mtrain.cli import group as mtrain

ROOT = Path(__file__).parent.parent
COMMANDS = {(p, n): c for p, g in {"dpconvert": dpconvert, "mtrain": mtrain}.items() for n, c in g.commands.items()}
COMMANDS["dpconvert", "lung"] = source_command("lung")
SHORT = {
    "backbones",
    "list",
    "show",
    "check",
    "preview",
    "fake",
    "runs",
    "watch",
    "select",
    "report",
    "doctor",
    "pool",
}  # no progress to silence
HELP_WIDTH = 78  # of a terminal of 80 columns, click leaves two empty


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.get_params(click.Context(command)) for name in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_to_programs_and_can_be_quiet(name: tuple[str, str]) -> None:
    assert "--json" in options(COMMANDS[name])  # what it then answers is tests/test_json.py's
    assert name[1] in SHORT or "--quiet" in options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_words_mean_the_same_everywhere(name: tuple[str, str]) -> None:
    (flag,) = [p for p in COMMANDS[name].params if "--json" in p.opts]
    assert isinstance(flag, click.Option)
    assert (flag.is_flag, flag.name) == (True, "as_json")
    quiet = [p for p in COMMANDS[name].params if "--quiet" in p.opts]
    assert all("-q" in p.opts for p in quiet)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen(name: tuple[str, str]) -> None:
    """80 columns, and 32 lines where a command has that much to say: --help-all prints what few need."""
    context = click.Context(COMMANDS[name], info_name=" ".join(name), terminal_width=HELP_WIDTH)
    lines = COMMANDS[name].get_help(context).splitlines()
    assert len(lines) <= 32
    assert max(map(len, lines)) <= 80
    options_of = COMMANDS[name].get_params(context)
    hidden = [option.opts[0] for option in options_of if isinstance(option, click.Option) and option.hidden]
    assert ("--help-all" in options(COMMANDS[name])) == bool(hidden)


class Screen(io.StringIO):
    """What a terminal receives."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [80, 140])
def test_a_bar_keeps_its_numbers_and_has_its_state_below(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen, name = Screen(), "densenet121-without-CellInclusion-ProliferativePattern-001"
    state = "loss 0.531, highest relative loss ProliferativePattern 0.600 (87% of guessing), lr shared 0.0001"
    with Reporter(stream=screen).bar(name, 50_000, done=12_000, unit="iterations") as advance:
        advance(345, state)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]+", screen.getvalue())]
    bar = next(line for line in lines if "12345/50000" in line)
    below = lines[lines.index(bar) + 1]
    assert re.search(r"12345/50000 iterations \d+\.\d(/s| s each) left [-:\d]+$", bar)
    assert max(len(bar), len(below)) <= width
    assert below.startswith("  loss 0.531, highest relative loss ProliferativePattern 0.600")
    assert bar.startswith("densene…" if width == 80 else name)


@pytest.mark.parametrize("width", [40, 60])
def test_a_bar_keeps_count_and_time_left_on_narrow_terminals(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    with Reporter(stream=screen).bar("WarwickCRC: verify the shards again", 22_444, unit="samples") as advance:
        advance(12_345)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]+", screen.getvalue())]
    assert any(re.search(r"^Warwick.* 12345/22444 [-:\d]+$", line) for line in lines)
    assert max(map(len, lines)) <= width


def on_a_terminal(command: list[str], **environment: str) -> bytes:
    """What a program writes to stderr when that is a terminal."""
    leader, follower = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=follower, env=kept | environment, cwd="/"
    )
    os.close(follower)
    try:
        return os.read(leader, 10_000)
    finally:
        os.close(leader)


WRONG = {
    "dpconvert": ["dpconvert.cli", "show", "nothing-such"],
    "mtrain": ["mtrain.cli", "export", "nothing-such"],
}


@pytest.mark.parametrize("program", WRONG)
def test_errors_are_coloured_on_terminals_alone_and_not_against_no_color(program: str) -> None:
    assert b"\x1b[31m" in on_a_terminal(WRONG[program])
    if program == "mtrain":  # the rest is the same code
        return
    plain = on_a_terminal(WRONG[program], NO_COLOR="1")
    assert plain.startswith(f"{program}: error: ".encode())
    assert b"\x1b" not in plain
    piped = subprocess.run(
        [sys.executable, "-m", *WRONG[program]], capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (piped.returncode, b"\x1b" in piped.stderr) == (1, False)


@pytest.mark.parametrize(("group", "program"), [(dpconvert, "dpconvert"), (mtrain, "mtrain")])
def test_commands_complete_as_the_page_says(
    group: click.Group, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "interoperability.md").read_text()
    assert f'eval "$(_{program.upper()}_COMPLETE=bash_source {program})"' in page
    monkeypatch.setenv("COMP_WORDS", f"{program} do")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv(f"_{program.upper()}_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit):
        group.main(prog_name=program)
    assert capsys.readouterr().out == "plain,doctor\n"


@pytest.mark.parametrize(
    ("group", "words", "flags"),
    [
        (mtrain, "transfer --run one --mode knn --run two --mode svm --target A --target B", ["--run", "--mode"]),
        (mtrain, "transfer --run one --mode svm --target A --target B", []),
        (mtrain, "fit --leave-out A --leave-out B --ema 0.9 --ema 0.99 -q --quiet", []),  # silent when asked
        (mtrain, "fit --runs a --no-such-option", []),  # click's own error
        (dpconvert, "lung --out a --workers 1 --out b --out c", ["--out"]),
        (dpconvert, "verify a b --json --json", []),
    ],
)
def test_an_option_of_one_value_that_is_given_again_is_named(
    group: click.Group, words: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(group, words.split()).stderr
    assert re.findall(r"(?m)^(\S+) is given (?:2|3) times: only the last one counts$", said) == flags


# --- doctors


def test_a_doctor_finds_this_machine_well_and_leaves_nothing(tmp_path: Path) -> None:
    found = list(doctor.checks(tmp_path / "not" / "there"))
    assert [check.name for check in found] == ["versions", "OpenSlide", "codecs", "disk", "locks", "processes"]
    slow = {"disk"}  # a test machine may be full or busy
    assert not [check for check in found if not check.ok and check.name not in slow]
    assert list(tmp_path.iterdir()) == []


def _gone() -> str:
    raise OSError("gone")


@pytest.mark.parametrize(
    ("name", "broken", "told"),
    [
        ("ROOM", 1 << 60, "GB free"),
        ("SLOW", 1e18, "MB/s: slow"),
        ("locks", SimpleNamespace(held=locks.held, is_held=os.path.isdir), "two processes got the same lock"),
        ("openslide_version", _gone, "gone"),
    ],
)
def test_a_problem_is_reported_with_its_remedy(
    name: str, broken: object, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, name, broken)
    bad = next(check for check in doctor.checks(tmp_path) if not check.ok)  # the checks after it take seconds
    assert told in bad.found
    assert bad.remedy


@pytest.mark.stress  # four processes, each of which imports torch
def test_two_ranks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_doctor._ranks() == "2 processes over gloo"
    monkeypatch.setattr(training_doctor, "_ping", _dies)
    bad = doctor.attempt("ranks", training_doctor._ranks, "train in one process")
    assert (bad.ok, bad.remedy) == (False, "train in one process")
    assert " dies at " in bad.found


def _dies(rank: int, meet: str) -> None:
    raise ValueError(f"rank {rank} dies at {meet}")


@pytest.mark.parametrize(("module", "command"), [(doctor, dpconvert), (training_doctor, mtrain)])
def test_the_command_tells_programs_and_its_exit_status_says_so(
    module: object, command: click.Group, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for well in (True, False):
        check = doctor.Check("disk", well, "2 GB", "make room")
        monkeypatch.setattr(module, "checks", {Path(): [check], Path("runs"): [check]}.__getitem__)
        code = 0
        try:
            command.main(["doctor", "--json"], standalone_mode=False)
        except SystemExit as stop:
            code = int(stop.code or 0)
        assert code == (not well)
        (told,) = json.loads(capsys.readouterr().out)
        assert told == {"name": "disk", "ok": well, "found": "2 GB", "remedy": "make room"}


@pytest.mark.parametrize(
    "interrupted",
    [
        "exec('os.kill(os.getpid(), signal.SIGINT); time.sleep(9)', {'os': os, 'signal': signal, 'time': time})",
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    ],
    ids=["in evaluated text, as of a dataclass", "elsewhere"],
)
@pytest.mark.parametrize(
    ("number", "instead"),
    [
        ("SIGINT", "KeyboardInterrupt"),
        ("SIGINT", "RuntimeError"),
        ("SIGINT", "UserError"),
        ("SIGTERM", "KeyboardInterrupt"),
    ],
)
def test_ctrl_c_is_one_line_and_status_130_whatever_a_library_makes_of_it(
    interrupted: str, number: str, instead: str, tmp_path: Path
) -> None:
    interrupted = interrupted.replace("SIGINT", number)
    (tmp_path / "program.py").write_text(
        "import os, signal, time\n"
        "from dpconvert.errors import UserError\n"
        "from dpconvert.runtime.terminal import ended\n"
        "with ended('program', 'stopped'):\n"
        f"    try: {interrupted}\n"
        f"    except KeyboardInterrupt: raise {instead}('changed by a library')\n"
    )
    command = [sys.executable, "-m", "program"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr.strip()) == (130, "", "program: stopped")


@pytest.mark.parametrize("name", ["dpconvert", "mtrain"])
def test_ctrl_c_while_a_program_loads_ends_it_without_a_traceback(name: str, tmp_path: Path) -> None:
    program = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][name].partition(":")[0]
    (tmp_path / "program.py").write_text(
        "import os, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == '{name}.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        f"from {program} import main\n"
        "main()\n"
    )
    command = [sys.executable, "-m", "program", "--version"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_that_python_loses_in_a_callback_ends_the_program_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import os, signal, time, weakref\n"
        "from dpconvert.runtime.terminal import ended\n"
        "class Thing: pass\n"
        "with ended('program', 'stopped'):\n"
        "    thing = Thing()\n"
        "    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))\n"
        "    del thing\n"
        "    time.sleep(90)\n"  # a wait that only a signal ends
    )
    command = [sys.executable, "-m", "program"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr.strip()) == (130, "", "program: stopped")


def test_a_second_ctrl_c_while_the_first_is_reported_gives_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import os, signal, click\n"
        "from dpconvert.runtime import terminal\n"
        "said = terminal.say\n"
        "terminal.say = lambda text: (said(text), os.kill(os.getpid(), signal.SIGINT))\n"
        "with terminal.ended('program', 'stopped'):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    command = [sys.executable, "-m", "program"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr.strip()) == (-signal.SIGINT, "program: stopped")


# --- tables


def test_a_table_fits_the_terminal_without_losing_a_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head, rows = ["file", "group", "size", "split"], [[f"{'a' * 40}_{n}.png", "P1", f"{n}.5", "train"] for n in (1, 12)]
    terminal.table(head, rows)
    assert f"{'a' * 40}_12.png  P1     12.5  train" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    terminal.table(head, rows)
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines] == [40] * 3
    assert lines[1].split() == ["aaaaaaaa...aaa_1.png", "P1", "1.5", "train"]
    assert lines[2].split() == ["aaaaaaaa...aa_12.png", "P1", "12.5", "train"]
    terminal.table(head, rows, whole=0)  # it cannot fit, so nothing is left out
    assert f"{'a' * 40}_12.png" in capsys.readouterr().out


@pytest.mark.parametrize("program", [dpconvert, mtrain])
def test_the_list_of_commands_has_whole_sentences(program: click.Group) -> None:
    context = click.Context(program, info_name="program", terminal_width=HELP_WIDTH)
    lines = program.get_help(context).partition("Commands:")[2].splitlines()
    assert not [line for line in lines if line.endswith("...")]
    assert max(map(len, lines)) <= 80


def test_an_argument_that_is_too_many_is_reported_with_the_options_that_may_be_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for group, words, told in (
        (mtrain, ["report", "toy"], "(toy); give it after --run or --sweep or --shards"),
        (dpconvert, ["verify", "shards", "more"], "(more)"),
    ):
        with pytest.raises(click.UsageError) as caught:
            group.main(words, standalone_mode=False)
        assert caught.value.message.endswith(told)


@pytest.mark.parametrize("words", [["list"], ["--help"], ["pool", "--json"]])
def test_output_that_cannot_be_written_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))  # type: ignore[type-var]
        with pytest.raises(SystemExit) as stop, terminal.ended("dpconvert", "stopped"):
            dpconvert.main(words, standalone_mode=False)
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "dpconvert: error: standard output: cannot be written: No space left on device\n"
    )


def test_an_error_of_a_file_is_no_error_of_the_output() -> None:
    with pytest.raises(FileNotFoundError), terminal.ended("dpconvert", "stopped"):
        Path("/nothing/such").read_text()


def test_a_stream_that_the_shell_has_closed_is_discarded(tmp_path: Path) -> None:
    """Else Python has None in its place, and the first file that is opened its number."""
    script = "from dpconvert.cli import main; import sys; sys.argv = ['dpconvert', 'list']; main()"
    command = f'"{sys.executable}" -c "{script}" >&- 2>{tmp_path / "errors"}'
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, check=False)
    assert (ended.returncode, (tmp_path / "errors").read_text()) == (0, "")


def test_a_name_that_is_near_no_other_is_answered_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["zzz-zzz"], "no command or source named 'zzz-zzz'; `dpconvert list` lists the sources, `dpconvert --help`"),
        (["show", "zzz-zzz"], "no source named 'zzz-zzz'; `dpconvert list` lists the sources"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            dpconvert.main(words, standalone_mode=False)

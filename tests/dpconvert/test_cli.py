"""The command line: what it answers, and one line for everything that one may get wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpconvert import __version__
from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from tests.dpconvert.conftest import Answer, Converted, one_line

Get = Callable[[str], Converted]
Call = Callable[..., Answer]
VERBS = {"all", "check", "fake", "list", "show", "verify"}
HEAVY = {"torch", "numpy", "pydantic", "PIL", "pyarrow", "scipy", "shapely", "openslide", "mtrain"}
TOML = """
task = "Toy"
shape = "folders"
[files.images]
pattern = '(?P<class>\\w+)/(?P<name>[^/]+)\\.png$'
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A manifest `toy.toml` and its source `toy/` of eight images."""
    (tmp_path / "toy.toml").write_text(TOML)
    for number in range(8):
        path = tmp_path / "toy" / ("no" if number % 2 else "yes") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
    return tmp_path


def convert_toy(dpconvert: Call, toy: Path, *options: object) -> Answer:
    return dpconvert(
        toy / "toy.toml", "--source", toy / "toy", "--out", toy / "out", "--workers", 1, "--quiet", *options
    )


# --- fast, and with help


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['dpconvert', '--help']\n"
        "import dpconvert.cli\n"
        "try: dpconvert.cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(answer.stdout.splitlines()[-1].split()) & HEAVY == set()
    assert "SOURCE | COMMAND" in answer.stdout


TOLD_EARLY = (  # what is wrong -> words of the error
    ("lung --source absent", "absent: no such folder"),
    ("lungg", "no command or source named 'lungg'; did you mean lung"),
    ("check lung --source absent", "absent: no such folder"),
    ("preview lung --source absent", "absent: no such folder"),
    ("preview lungg", "no source named 'lungg'"),
    ("preview empty", "empty: no converted task in this folder"),
    ("fake lungg", "no source named 'lungg'"),
    ("fetch lungg", "no source named 'lungg'"),
    ("fetch --pool open-day", "no pool named 'open-day'"),
    ("pool open-day", "no pool named 'open-day'"),
    ("show lungg", "no source named 'lungg'"),
    ("init absent", "absent: no such folder"),
    ("verify absent", "absent: no such folder"),
    ("audit absent", "absent: no such folder"),
    ("unpack empty", "empty: no converted task in this folder"),
)


def test_a_wrong_name_is_reported_before_images_and_annotations_can_be_read(tmp_path: Path) -> None:
    """All of them one after the other in one process, where the libraries that take long to import are missing."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "without").mkdir()
    for library in ("scipy", "shapely", "zarr", "tifffile", "pyarrow"):
        (tmp_path / "without" / f"{library}.py").write_text(f"raise AssertionError('{library} is imported')")
    code = (
        "import json, sys; from dpconvert.cli import main\n"
        "for line in json.load(sys.stdin):\n"
        "    sys.argv = ['dpconvert', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert stop.code == 1, line\n"
    )
    path = f"{tmp_path / 'without'}{os.pathsep}{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([line for line, _ in TOLD_EARLY]),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (line, said), answered in zip(TOLD_EARLY, done.stderr.splitlines(), strict=True):
        assert answered.startswith("dpconvert: error: "), line
        assert said in answered, line


def test_every_command_has_help_with_an_example(dpconvert: Call) -> None:
    answer = dpconvert("--help")
    listed = re.findall(r"^  (\S+)", answer.out.partition("Commands:\n")[2], re.MULTILINE)
    assert set(listed) >= VERBS
    for verb in [*listed, "camelyon16"]:
        told = dpconvert(verb, "--help")
        assert told.code == 0
        assert f"Example: dpconvert {verb}" in told.out


def test_the_version_is_reported(dpconvert: Call) -> None:
    assert dpconvert("--version").out == f"dpconvert, version {__version__}\n"


# --- answers for programs


def test_json_answers_are_json(dpconvert: Call, toy: Path) -> None:
    listed = json.loads(dpconvert("list", "--json").out)
    assert {"name": "warwick-crc", "task": "WarwickCRC", "kind": "detection"}.items() <= next(
        entry for entry in listed if entry["name"] == "warwick-crc"
    ).items()
    assert json.loads(dpconvert("show", "warwick-crc", "--json").out)["classes"] == ["Other", "Inflammatory"]
    card = json.loads(convert_toy(dpconvert, toy, "--json").out)
    assert (card["task"], card["classes"], card["schema"]) == ("Toy", ["no", "yes"], 1)
    checked = json.loads(dpconvert("check", toy / "toy.toml", "--source", toy / "toy", "--json").out)
    (row,) = checked["files"]
    assert (row["found"], row["state"]) == (8, "")


def test_list_names_every_source_with_its_licence(dpconvert: Call) -> None:
    lines = dpconvert("list").out.splitlines()
    assert lines[0].split() == ["source", "task", "kind", "classes", "samples", "licence"]
    assert any(line.split()[:2] == ["camelyon16", "Camelyon16"] and line.endswith("CC0") for line in lines)
    counts = {words[0]: words[4] for words in map(str.split, lines)}
    assert counts["patch-camelyon"] == "327680"  # not in the paper
    assert counts["stroma-lbp"] == "1376"  # of the paper's 2313
    assert counts["camelyon16"] == "292226"  # the paper's: its own count depends on pixels
    assert counts["breakhis"] == "not"  # of "not verified": the errata change the count of the release


def test_a_conversion_tells_what_was_made(dpconvert: Call, toy: Path) -> None:
    answer = convert_toy(dpconvert, toy)
    assert answer.code == 0
    assert answer.out.startswith(
        f"Toy: 8 samples in 3 shards (3 shards written, 0 existing) -> {toy / 'out' / 'Toy'}\n"
    )
    assert "digest " in answer.out
    table = [line.split() for line in answer.out.splitlines()[1:4]]
    assert table[0] == ["class", "train", "val", "test"]
    again = convert_toy(dpconvert, toy).out  # from the card, whose keys are sorted
    assert "(already complete)" in again
    assert [line.split() for line in again.splitlines()[1:4]] == table


def test_notes_of_the_manifest_and_known_differences_are_printed_with_verbose(dpconvert: Call, toy: Path) -> None:
    expected = '[expected]\ntotal = 9\nclasses = [5, 5]\nreasons = {total = "r", no = "r", yes = "r"}\n'
    (toy / "toy.toml").write_text(f'classes = ["no", "yes"]\nnotes = ["Scanned in 2009."]\n{TOML}{expected}')
    (toy / "toy" / "notes.csv").write_text("a\n1\n")
    short, long = convert_toy(dpconvert, toy).out, convert_toy(dpconvert, toy, "--verbose").out
    assert "Scanned in 2009." not in short
    assert "1 note about the dataset not shown; --verbose or `dpconvert show` prints them" in short
    assert "note: Scanned in 2009.\n" in long
    assert "not shown" not in long
    assert (
        "note: not used: 1 file of annotations or tables (1 .csv), the first notes.csv" in short
    )  # of this conversion: the user may want to act
    assert (short.count("(known: r)"), long.count("(known: r)")) == (1, 3)


def test_check_exits_1_while_something_is_missing(dpconvert: Call, converted: Get) -> None:
    answer = dpconvert("check", "warwick-crc", "--source", converted("warwick-crc").source)
    assert answer.code == 1
    assert [line.split()[:4] for line in answer.out.splitlines()[2:5]] == [
        ["images", "of", "500", "x"],
        ["tables", "of", "nuclei", "40"],
        ["not", "matched:", ".txt", "1"],
    ]
    assert answer.out.count("missing") == 2


@pytest.mark.parametrize("name", ["warwick-crc", "WarwickCRC", "WARWICK_CRC", "warwickcrc"])
def test_names_are_matched_without_case_dashes_and_underscores(name: str, dpconvert: Call) -> None:
    assert dpconvert("show", name).out.startswith("warwick-crc -> WarwickCRC")
    assert "no such folder" in one_line(dpconvert(name, "--source", "/nowhere"))


@pytest.mark.parametrize("command", ["show", "check", "fetch", "preview", "verify", "init"])
def test_a_name_that_is_too_long_for_the_system_is_one_line(command: str, dpconvert: Call) -> None:
    told = one_line(dpconvert(command, "n" * 300))
    assert told.endswith("a name that is longer than this system allows")


@pytest.mark.parametrize("name", ["tupac2016-mitosis", "TUPAC2016Mitosis", "tupac16-mitosis", "TUPAC2016 Mitosis"])
def test_a_source_is_known_by_the_name_of_its_task_too(name: str, dpconvert: Call) -> None:
    assert dpconvert("show", name).out.startswith("tupac16-mitosis -> TUPAC2016Mitosis")
    assert "sources/tupac16-mitosis: no such folder" in one_line(dpconvert(name))


def test_check_lists_what_is_there_and_its_remedy_works_for_a_manifest_of_one_s_own(
    dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my data").mkdir()
    for name in ("a.webp", "b.webp", "c.kfb", "d.rar"):
        (tmp_path / "my data" / name).write_bytes(b"x")
    (tmp_path / "my own.toml").write_text("task = 'T'\nshape = 'folders'\n[files.images]\npattern = '\\w+\\.png$'\n")
    monkeypatch.chdir(tmp_path)
    told = one_line(dpconvert("my own.toml", "--source", "my data", "--out", "out"))
    assert "no matching files here; expected names that match '\\w+\\.png$'; found 2 .webp, 1 .kfb, 1 .rar" in told
    assert "unpack d.rar" in told
    (tmp_path / "my data" / "d.rar").unlink()
    told = one_line(dpconvert("my own.toml", "--source", "my data", "--out", "out"))
    remedy = shlex.split(told.partition("`")[2].partition("`")[0])
    assert remedy == ["dpconvert", "check", "my own.toml", "--source", "my data"]
    answer = dpconvert(*remedy[1:])
    assert answer.code == 1
    assert "not matched: .webp" in answer.out
    assert "a.webp" in answer.out
    assert "1 slide in a format that is not read (KFBio), the first: c.kfb" in answer.out


def test_the_source_is_found_below_a_folder_of_sources(
    dpconvert: Call, converted: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = converted("warwick-crc").source
    monkeypatch.setenv("DPCONVERT_SOURCES", str(source.parent))
    assert dpconvert("check", "warwick-crc").out.startswith(f"{source}: ")


def test_fake_draws_below_out_and_says_how_to_go_on(dpconvert: Call, tmp_path: Path) -> None:
    answer = dpconvert("fake", "WARWICK_CRC", "--out", tmp_path)
    assert answer.out.startswith(f"{tmp_path / 'warwick-crc'}: convert it with `dpconvert warwick-crc --source ")
    assert "not empty; choose another --out" in one_line(dpconvert("fake", "warwick-crc", "--out", tmp_path))
    (tmp_path / "file").touch()
    assert "cannot be written: " in one_line(dpconvert("fake", "warwick-crc", "--out", tmp_path / "file"))


# --- wrong names and options


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("src.tml",), "no command or source named 'src.tml'; did you mean src.toml?"),
        (("check", "./SRC"), "no source named './SRC'; did you mean src.toml?"),
        (("show", "srcs.toml"), "srcs.toml: cannot be read: No such file or directory; did you mean src.toml?"),
        (
            ("slides",),
            "'slides' is a folder; expected a command or source, or a manifest that describes the files in a "
            "folder; `dpconvert init slides` drafts one",
        ),
        (("check", "a.csv"), "'a.csv' is a file; expected a source, or a manifest; the name of a manifest ends in "),
    ],
)
def test_a_name_that_is_nearly_that_of_a_file_here(
    dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src.toml").touch()
    Path("a.csv").touch()
    Path("slides").mkdir()
    assert told in one_line(dpconvert(*arguments))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("camelyn16",), "no command or source named 'camelyn16'; did you mean camelyon16"),
        (("shwo",), "no command or source named 'shwo'; did you mean show"),
        (("show", "warwik"), "no source named 'warwik'; did you mean warwick-crc"),
        (("show", "qqqqqqq"), "no source named 'qqqqqqq'; `dpconvert list` lists the sources"),
        (
            ("check", "warwick-crc", "--source", "/nowhere"),
            "/nowhere: no such folder; expected the files of WarwickCRC",
        ),
        (("warwick-crc", "--source", "/dev/null"), "/dev/null: not a folder"),
        (("verify", "/nowhere"), "/nowhere: no such folder; give the folder that --out named"),
        (("show", "/nowhere/my.toml"), "/nowhere/my.toml: cannot be read: No such file or directory"),
        (("all", "--root", "/nowhere"), "/nowhere: no known source in this folder"),
    ],
)
def test_a_wrong_name_gets_one_line(arguments: tuple[str, ...], told: str, dpconvert: Call) -> None:
    answer = dpconvert(*arguments)
    assert answer.code == 1
    assert told in one_line(answer)
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("warwick-crc", "--limit", "0"),
        ("warwick-crc", "--workers", "none"),
        ("warwick-crc", "--split", "other"),
        ("warwick-crc", "--image-format", "gif"),
        ("warwick-crc", "--nothing"),
        ("show",),
        ("--nothing",),
    ],
)
def test_a_wrong_option_exits_2_and_is_named(arguments: tuple[str, ...], dpconvert: Call) -> None:
    answer = dpconvert(*arguments)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("Error: ")


def test_an_unknown_erratum_and_a_missing_policy_are_reported_before_anything_is_made(
    dpconvert: Call, toy: Path
) -> None:
    assert "toy: no erratum 'x'; this source has: none, default" in one_line(
        convert_toy(dpconvert, toy, "--errata", "x")
    )
    assert "toy: no split policy 'paper'; this source has: strict" in one_line(
        convert_toy(dpconvert, toy, "--split", "paper")
    )


def test_an_empty_folder_is_reported_with_what_was_looked_for(dpconvert: Call, tmp_path: Path) -> None:
    answer = dpconvert("warwick-crc", "--source", tmp_path, "--out", tmp_path / "out")
    assert answer.code == 1
    assert f"{tmp_path}: no matching tables of nuclei here; expected names like 'CRCHisto" in one_line(answer)
    assert f"`dpconvert check warwick-crc --source {tmp_path}` lists the existing and the missing files" in answer.err


# --- wrong manifests


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task = ", "not TOML: "),
        ("\xff", "not TOML: "),
        ("", "task: is missing"),
        ('task = "a b"', "task: must match ^[A-Za-z0-9]"),
        ('task = "T"\nlicense = "x"', "license: is not known here (did you mean 'licence'?); found 'x'"),
        (
            'task = "T"\nkind = "other"',
            "kind: must be 'classification', 'detection', 'segmentation', 'ordinal', 'multilabel' or 'regression'",
        ),
        ('task = "T"\nclasses = ["a", "a"]', "a class is named twice"),
        ('task = "T"\n[rule]\ntype = "gird"', "rule: must be one of 'whole', 'tiles', 'presence'"),
        ('task = "T"\n[rule]\ntype = "tiles"', "rule.tiles.size: is missing"),
        ('task = "T"\n[rule]\ntype = "tiles"\nsize = 9\noverlap = 9', "rule.tiles: overlap must be smaller than size"),
        ('task = "T"\n[rule]\ntype = "area"\nsize = 9\npositive = ["a"]\nshare = 0.1', "rule 'area' gives two classes"),
        ('task = "T"\n[files.images]\npattern = "("', "files.images.pattern: not a regular expression: "),
        ('task = "T"\n[[errata]]\nname = "a"\npictures = "("\nreason = ""\ncitation = ""', "not a regular expression"),
        ('task = "T"\n[split.strict]\ntrain = ["a"]\ntest = ["a"]', "split.strict: a group is named twice"),
        ('task = "T"\n[split.paper]\nshare = [1, 1, 1]', "a split policy 'strict' is needed"),
    ],
)
def test_a_wrong_manifest_is_reported_by_its_first_fault(text: str, told: str, dpconvert: Call, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(text.encode("latin-1"))
    answer = dpconvert(path, "--source", tmp_path, "--out", tmp_path / "out")
    assert answer.code == 1
    assert one_line(answer).startswith(f"dpconvert: error: {path}: ")
    assert told in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ('shape = "floders"', "my.toml: unknown shape; expected one of "),
        ("", "my.toml: nothing reads this source's layout; name a `shape`, or the `reader` of a known source"),
        (
            'reader = "segpath"',
            "my.toml: unknown reader; expected one of aml-cytomorphology-lmu, bach18-micro,|'segpath'; did you mean",
        ),
        ('reader = "segpath-epithelium"', "my.toml: files.images: the reader 'segpath-epithelium' needs it; expected"),
        (
            'reader = "umcm-colorectal"\n[files.images]\npattern = "x"\n[files.tables]\npattern = "x"',
            "my.toml: files.tables: the reader 'umcm-colorectal' reads no such files; expected files.images",
        ),
        (
            'reader = "bone-marrow"\n[files.images]\npattern = "x"',
            "my.toml: layout.last_of_training: the reader 'bone-marrow' needs it",
        ),
        ('shape = "folders"\n[files.images]\npattern = "png$"', "no group (?P<class>...); name one in the manifest's"),
        (
            'shape = "folders"\n[layout]\nlables = {a = "b"}',
            "my.toml: layout.lables: is not known here (did you mean 'labels'?)",
        ),
        ('shape = "table"', "my.toml: layout.file: is missing"),
        ('shape = "masks"\n[rule]\ntype="centre"\nsize=2\npositive=["yes"]', "`values` is needed"),
        ('shape = "points"\n[layout]\ncolumns = ["a"]', "layout.columns: x and y must be among"),
    ],
)
def test_a_manifest_that_does_not_fit_its_shape_is_reported(shape: str, told: str, dpconvert: Call, toy: Path) -> None:
    (toy / "my.toml").write_text(f'task = "T"\nclasses = ["no", "yes"]\n{shape}\n')
    (toy / "toy" / "labels.csv").write_text("a\n1\n")
    answer = dpconvert(toy / "my.toml", "--source", toy / "toy", "--out", toy / "out", "--workers", 1)
    assert answer.code == 1
    assert any(part in one_line(answer) for part in told.split("|"))


@pytest.mark.parametrize("template", ["{slide}", "{0}", "{a.b}", "{a[b]}", "{a!z}", "{a:.2f}", "{", "{a:{b}}"])
def test_a_template_that_does_not_fit_the_table_is_reported(template: str, dpconvert: Call, toy: Path) -> None:
    (toy / "my.toml").write_text(f'task = "T"\nshape = "table"\n[layout]\nfile = "{template}"\nlabel = "a"\n')
    (toy / "toy" / "labels.csv").write_text("a\n1\n")
    answer = dpconvert(toy / "my.toml", "--source", toy / "toy", "--out", toy / "out")
    assert answer.code == 1
    assert "does not fit the table's columns" in one_line(answer)


# --- names that a terminal would obey


def test_control_characters_in_names_are_shown_escaped(dpconvert: Call, toy: Path) -> None:
    name = "a\nb\x1b[31mc"
    (toy / "toy" / "yes" / f"{name}.png").write_bytes(b"no picture")
    answer = convert_toy(dpconvert, toy)
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert "\x1b" not in answer.err
    assert r"a\nb\x1b[31mc.png" in one_line(answer)
    skipped = convert_toy(dpconvert, toy, "--skip-failed", "--overwrite")
    assert skipped.code == 1  # something is missing
    assert "\x1b" not in skipped.out


def test_control_characters_of_a_task_card_are_shown_escaped(dpconvert: Call, toy: Path) -> None:
    from dpconvert import card as cards

    convert_toy(dpconvert, toy)
    folder = toy / "out" / "Toy"
    card = cards.load(folder).model_copy(update={"task": "T\x1b[2Joy"})
    (folder / "task.json").write_bytes(cards.dump(card))
    answer = dpconvert("verify", folder, "--workers", 1, "--quiet")
    assert answer.code == 0
    assert answer.out.startswith(r"T\x1b[2Joy: 8 samples")


# --- verify


def test_verify_of_an_unfinished_conversion_does_not_ask_to_overwrite_it(dpconvert: Call, toy: Path) -> None:
    convert_toy(dpconvert, toy)
    (toy / "out" / "Toy" / "task.json").unlink()
    answer = dpconvert("verify", toy / "out", "--workers", 1, "--quiet")
    assert answer.err.splitlines() == [
        f"dpconvert: error: {toy / 'out' / 'Toy'}: no task.json; the conversion is unfinished: run it again",
        "dpconvert: error: 1 problem",
    ]


def test_verify_says_what_is_whole_and_what_is_not(dpconvert: Call, toy: Path) -> None:
    convert_toy(dpconvert, toy)
    shutil.copytree(toy / "out" / "Toy", toy / "out" / "Cut")
    assert dpconvert("verify", toy / "out" / "Toy", "--workers", 1, "--quiet").code == 0
    shard = toy / "out" / "Cut" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    (toy / "out" / "Cut" / "index.parquet").unlink()
    answer = dpconvert("verify", toy / "out", "--workers", 1, "--quiet")
    assert answer.code == 1
    assert answer.out.startswith("Toy: 8 samples in 3 shards as written, ")
    assert answer.err.splitlines() == [
        f"{toy / 'out' / 'Cut' / 'index.parquet'}: missing",
        f"{shard}: changed since it was written",
        "dpconvert: error: 2 problems; convert the damaged tasks again with --overwrite",
    ]


def test_verify_against_another_digest_exits_1(dpconvert: Call, toy: Path) -> None:
    digest = json.loads(convert_toy(dpconvert, toy, "--json").out)["digest"]
    command = ("verify", toy / "out", "--workers", 1, "--quiet", "--against")
    assert dpconvert(*command, digest).code == 0
    answer = dpconvert(*command, "0" * 64)
    assert answer.code == 1
    assert f"task.json: digest {digest} is not the expected one, 0000" in answer.err


def test_all_converts_what_is_there_and_names_what_is_not(dpconvert: Call, tmp_path: Path) -> None:
    for name in ("lung", "necrosis"):
        draw_fake(find(name), tmp_path / "sources")
    answer = dpconvert("all", "--root", tmp_path / "sources", "--out", tmp_path / "out", "--workers", 1, "-q")
    assert answer.code == 0
    assert {path.parent.name for path in (tmp_path / "out").glob("*/task.json")} == {"Lung", "Necrosis"}
    assert "converted 2; failed: none; not in" in answer.err
    assert "camelyon16" in answer.err


def test_all_goes_on_after_a_source_that_fails(dpconvert: Call, tmp_path: Path) -> None:
    draw_fake(find("necrosis"), tmp_path / "sources")
    (tmp_path / "sources" / "lung").mkdir()
    answer = dpconvert("all", "--root", tmp_path / "sources", "--out", tmp_path / "out", "--workers", 1, "-q")
    assert answer.code == 1
    assert (tmp_path / "out" / "Necrosis" / "task.json").is_file()
    assert "error: lung: " in answer.err
    assert "converted 1; failed: lung;" in answer.err


def test_a_damaged_plan_is_made_again_and_a_damaged_request_reported(dpconvert: Call, toy: Path) -> None:
    asked = (toy / "toy.toml", "--source", toy / "toy", "--out", toy / "out", "--workers", 1, "-q")
    assert dpconvert(*asked).code == 0
    task = toy / "out" / "Toy"
    made = {path.name: path.read_bytes() for path in task.glob("*.tar")}
    request = json.loads((task / "task.json").read_text())["request"]
    (task / "task.json").unlink()
    (task / ".work").mkdir()
    (task / ".work" / "request.json").write_text(request)
    (task / ".work" / "plan.jsonl").write_text("[1]\n{")
    assert dpconvert(*asked).code == 0
    assert {path.name: path.read_bytes() for path in task.glob("*.tar")} == made
    (task / "task.json").unlink()
    (task / ".work").mkdir()
    (task / ".work" / "request.json").write_text("[")
    answer = dpconvert(*asked)
    assert (answer.code, "request.json cannot be read" in answer.err) == (1, True)

"""What a manifest or an option gives and the conversion has no use for is said, key by key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert.card import TaskCard
from dpconvert.cli import group
from dpconvert.errors import ManifestError, SourceError
from dpconvert.image import open_image
from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer, one_line, run

Call = Callable[..., Answer]
HEAD = 'task = "Mine"\nclasses = ["a", "b"]\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(8):
        path = tmp_path / "source" / "ab"[number % 2] / f"p{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    rows = [f"{'ab'[number % 2]}/p{number}.png,{'ab'[number % 2]}\n" for number in range(8)]
    (tmp_path / "source/labels.csv").write_text("file,label\n" + "".join(rows))
    return tmp_path / "source"


def convert(source: Path, text: str, **options: object) -> TaskCard:
    (source.parent / "m.toml").write_text(HEAD + text)
    return run(with_defaults(load(source.parent / "m.toml")), source, source.parent / "out", **options)


FOLDERS = 'shape = "folders"\n'
TABLE = 'shape = "table"\nlayout = {file = "{file}", label = "label"KEYS}\n'
PATTERN = "[files.images]\npattern = '(?P<class>[ab])/(?P<PART>p\\d)[.]png'\n"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            FOLDERS + 'layout = {labels = {a = "a", c = "b"}}',
            "not used: 'c' in `labels` under [layout], which no image has",
        ),
        (
            FOLDERS + PATTERN.replace("PART", "patient"),
            "not used: (?P<patient>...) in the pattern of [files.images], which may have "
            "(?P<class>...), (?P<group>...), (?P<name>...), (?P<split>...)",
        ),
        (FOLDERS + "allow_outside = true", "not used: `allow_outside`: the rule 'whole' reads no annotations"),
        (FOLDERS + "[image]\nquality = 80", "not used: `quality` under [image]: samples are stored as PNG"),
        (
            FOLDERS + '[rule]\ntype = "crop"\nsize = 16\nmpp = 0.5',
            "not used: `mpp`, `size` under [rule]: the images are crops already",
        ),
        (
            FOLDERS
            + '[split.strict]\nshare = [0.5, 0.2, 0.3]\ntrain = ["p0", "p9"]\n'
            + PATTERN.replace("PART", "group"),
            "not used: 'p9', named in [split.strict] and on no image here",
        ),
        (
            FOLDERS + '[split.strict]\ndraw = "hashed"',
            "not used: `draw` under [split.strict]: nothing is drawn without `share`, or a share in `val`",
        ),
        (
            TABLE.replace("KEYS", ', skip = ["?"], labels = {a = "a", b = "b", B2 = "b"}'),
            "not used: 'B2' in `labels` under [layout], which no image has",
        ),
        (TABLE.replace("KEYS", ', skip = ["?"]'), "not used: '?' in `skip` under [layout], which no image has"),
    ],
)
def test_a_key_without_use_is_said(source: Path, text: str, note: str) -> None:
    assert note in convert(source, text).notes


def test_nothing_is_said_where_all_is_used(source: Path) -> None:
    card = convert(source, FOLDERS + "[split.strict]\nshare = [0.5, 0.2, 0.3]\n" + PATTERN.replace("PART", "group"))
    assert [note for note in card.notes if "used" in note and "labels.csv" not in note] == []


def test_sets_that_names_state_are_used_or_said(source: Path) -> None:
    for folder, label in (("train", "a"), ("test", "b")):
        (source / folder).mkdir()
        (source / label).rename(source / folder / label)
    card = convert(source, FOLDERS)
    assert (
        "not used: the sets that 8 images state, the first test/b/p1 (test); `official = true` under [split.strict] "
        "keeps to them" in card.notes
    )


def test_a_share_beside_sets_of_all_images_is_said_and_the_draw_of_a_validation_set_is_not(source: Path) -> None:
    (source / "a").rename(source / "train")
    (source / "b").rename(source / "test")
    for name in ("train", "test"):
        (source / name / "a").mkdir()
        (source / name / "b").mkdir()
        for number, file in enumerate(sorted((source / name).glob("*.png"))):
            file.rename(source / name / "ab"[number % 2] / file.name)
    text = FOLDERS + "[split.strict]\nofficial = true\n"
    told = "not used: `share` under [split.strict]: each image has a set, which `official = true` keeps"
    assert told in convert(source, text + "share = [0.8, 0.1, 0.1]").notes
    shutil.rmtree(source.parent / "out")
    assert not [note for note in convert(source, text + 'val = 0.5\ndraw = "hashed"').notes if "draw" in note]


@pytest.mark.parametrize(
    ("share", "told"), [("", "they go to the training set"), ("share = [0, 0, 1]\n", "they are drawn by `share`")]
)
def test_images_whose_row_names_no_set_are_counted(source: Path, share: str, told: str) -> None:
    table = source / "labels.csv"
    sets = ["set", *["train"] * 3, *["test"] * 3, "", ""]
    rows = table.read_text().splitlines()
    table.write_text("".join(f"{row},{of}\n" for row, of in zip(rows, sets, strict=True)))
    card = convert(source, TABLE.replace("KEYS", ', split = "set"') + f"[split.strict]\nofficial = true\n{share}")
    assert f"2 images without a set, the first a/p6: {told}" in card.notes


def test_groups_and_sets_in_the_names_of_a_table_s_images_count(source: Path) -> None:
    pattern = "[files.images]\npattern = '(?P<group>p\\d)[.]png'\n"
    convert(source, TABLE.replace("KEYS", "") + pattern)
    groups = {row["group"] for row in read_index(source.parent / "out" / "Mine" / "index.parquet").to_pylist()}
    assert groups == {f"m:p{number}" for number in range(8)}


def test_a_kind_of_files_that_a_shape_does_not_know_is_refused(source: Path) -> None:
    with pytest.raises(ManifestError) as refused:
        convert(source, FOLDERS + "[files.image]\npattern = 'x'\n")
    assert "files.image: the shape 'folders' reads no such files" in str(refused.value)
    assert "did you mean 'files.images'?" in str(refused.value)


def test_a_manifest_s_resolution_that_files_contradict_is_said(source: Path) -> None:
    for number in range(4):
        path = source / "ab"[number % 2] / f"q{number}.tif"
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        mpp = 0.25 if number else 0.5
        tifffile.imwrite(
            path, pixels, photometric="rgb", resolution=(1e4 / mpp, 1e4 / mpp), resolutionunit="CENTIMETER"
        )
    card = convert(source, FOLDERS + "mpp = 0.25")
    assert (
        "`mpp = 0.25` is not used where a file states another resolution (1 of 12 images, the first 0.5); "
        "`mpp_override = 0.25` replaces what files state" in card.notes
    )


@pytest.mark.parametrize("shape", [FOLDERS, TABLE.replace("KEYS", "")])
def test_a_rule_that_needs_annotations_where_there_are_none_is_one_line(
    source: Path, shape: str, dpconvert: Call
) -> None:
    (source.parent / "m.toml").write_text(
        HEAD + shape + '[rule]\ntype = "area"\nsize = 16\nshare = 0.5\npositive = ["b"]\n'
    )
    answer = dpconvert(source.parent / "m.toml", "--source", source, "--out", source.parent / "out", "--workers", 1)
    assert answer.code == 1
    assert "annotations" in one_line(answer)


SLIDES = (
    'shape = "slides"\nlayout = {missing = "none", values = {1 = "b"}, boxes = "xyxy", group = "patient", '
    'labels = {b = "b"}}\n[rule]\ntype = "area"\nsize = 16\nshare = 0.5\npositive = ["b"]\ntissue_rule = "glass"\n'
)


def test_keys_of_slides_without_annotations_tables_or_tissue_are_said(source: Path) -> None:
    for number in range(3):
        tifffile.imwrite(source / f"s{number}.tif", np.full((64, 64, 3), 90 * number, np.uint8), photometric="rgb")
    notes = convert(source, SLIDES).notes
    assert "not used: `values` under [layout]: no file of annotations is a mask" in notes
    assert "not used: `boxes` under [layout]: no file of annotations is JSON" in notes
    assert "not used: `labels` under [layout]: there is no file of annotations" in notes
    assert "not used: `group` under [layout]: there is no table of slides" in notes
    assert "not used: `tissue_rule` under [rule]: no share of tissue is required (`tissue`)" in notes


def test_keys_of_points_and_masks_by_what_their_files_are(source: Path) -> None:
    for path in sorted(source.glob("*/*.png")):
        path.with_suffix(".json").write_text("[[5, 5], [20, 20]]")
    text = 'shape = "points"\nlayout = {label = "b", delimiter = ",", skip = 1, label_variable = "x"}\n'
    notes = convert(
        source, text + '[files.points]\npattern = "(?P<name>p.)[.]json"\n[rule]\ntype = "crop"\nsize = 8\n'
    ).notes
    assert "not used: `delimiter`, `skip` under [layout]: no file of points is a table" in notes
    assert "not used: `label_variable` under [layout]: no file of points is of MATLAB" in notes


@pytest.mark.parametrize("ending", ["gif", "webp", "jp2", "ppm", "pgm", "tif", "bmp", "jpg", "JPEG"])
def test_default_patterns_take_every_format_that_is_read(ending: str, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "source" / label).mkdir(parents=True)
        Image.new("L", (8, 8), 90).save(tmp_path / "source" / label / f"x.{ending}")
    convert(tmp_path / "source", FOLDERS)
    found = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    assert {row["source"] for row in found} == {f"a/x.{ending}", f"b/x.{ending}"}


def test_an_image_in_no_row_is_refused_unless_the_manifest_says_so(source: Path) -> None:
    (source / "labels.csv").write_text((source / "labels.csv").read_text().replace("b/p7.png,b\n", ""))
    with pytest.raises(SourceError, match=r"b/p7.png: 1 image in no row of a table; .*`missing = true`"):
        convert(source, TABLE.replace("KEYS", ""))
    card = convert(source, TABLE.replace("KEYS", ", missing = true"))
    assert "not used: 1 image in no row of a table, the first b/p7.png" in card.notes


@pytest.mark.parametrize("root", ["C:\\Users\\me\\data\\", "/home/me/data/", "D:/x/"])
def test_paths_of_another_machine_are_found_by_their_ends(source: Path, root: str) -> None:
    rows = (source / "labels.csv").read_text().splitlines()
    slash = "\\" if "\\" in root else "/"
    text = [root + row.replace("/", slash) for row in rows[1:]]
    (source / "labels.csv").write_text("\n".join([rows[0], *text]))
    card = convert(source, TABLE.replace("KEYS", ""))
    assert card.samples() == 8
    cut = root.replace("\\", "/").strip("/")
    assert f"the table's paths begin with {cut}/, which is taken for this source" in card.notes
    shutil.rmtree(source.parent / "out")
    (source / "labels.csv").write_text("\n".join([rows[0], *text, f"{root}other{slash}p0.png,a"]))
    with pytest.raises(SourceError, match="line 10: no image of this name"):
        convert(source, TABLE.replace("KEYS", ""))


@pytest.mark.parametrize(("unit", "per"), [(4, 4000), (5, 4), (3, 40_000)])
def test_units_of_resolution_beyond_tiff_6_are_those_of_tifffile(unit: int, per: int, tmp_path: Path) -> None:
    pixels = np.full((32, 32, 3), 9, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", resolution=(per, per), resolutionunit=unit)
    with open_image([tmp_path / "a.tif"]) as image:
        assert image.mpp == 0.25


def test_a_format_that_whole_files_do_not_take_is_said(source: Path) -> None:
    note = "--image-format jpeg is not used for 8 of 8 samples, which keep the bytes of their files or tiles"
    assert note in convert(source, FOLDERS, image_format="jpeg").notes
    shutil.rmtree(source.parent / "out")
    assert not any("--image-format" in note for note in convert(source, FOLDERS, image_format="png").notes)


RANGE = "not used: `range` under [pixels]: no image has samples of more than 8 bits"


@pytest.mark.parametrize(
    ("name", "write", "needs"),
    [
        ("x.png", lambda path: Image.fromarray(np.full((8, 8), 2000, np.uint16)).save(path), True),
        ("x.tif", lambda path: tifffile.imwrite(path, np.ones((8, 8), np.float32)), True),
        ("x.tif", lambda path: tifffile.imwrite(path, np.ones((8, 8), np.int8)), True),
        ("x.tif", lambda path: tifffile.imwrite(path, np.ones((8, 8), np.uint8)), False),
        ("x.pgm", lambda path: path.write_bytes(b"P5 8 8 4095\n" + b"\x0f\xff" * 64), True),
        ("x.pgm", lambda path: path.write_bytes(b"P5 8 8 255\n" + b"\xff" * 64), False),
        ("x.jp2", lambda path: Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(path), False),
        ("x.jpg", lambda path: Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(path), False),
    ],
)
def test_a_range_that_no_image_needs_is_said(
    source: Path, name: str, write: Callable[[Path], None], needs: bool
) -> None:
    write(source / "a" / name)
    assert (RANGE in convert(source, FOLDERS + "[pixels]\nrange = [0, 4095]").notes) == (not needs)


@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
def test_a_reading_of_masks_that_none_needs_is_said(kind: str, tmp_path: Path) -> None:
    for number in range(3):
        for folder, shown in (("images", "minisblack"), ("masks", kind)):
            path = tmp_path / "source" / folder / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, np.full((16, 16), number % 2, np.uint8), photometric=shown)
    text = 'shape = "masks"\n[layout]\nvalues = {0 = "a", 1 = "b"}\nwhite_is_zero = "stored"\n'
    notes = convert(tmp_path / "source", text + '[rule]\ntype = "area"\npositive = ["b"]\nshare = 0.5\nsize = 8').notes
    told = "not used: `white_is_zero` under [layout]: no mask is a TIFF whose zero is white"
    assert (told in notes) == (kind == "minisblack")


# --- options of the commands

SHARE = FOLDERS + "[split.strict]\nshare = [1, 0, 0]\n"
FETCH = ("fetch", "warwick-crc", "--to", "x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("m.toml", "--errata", "none"), "--errata none is not used: no errata of this source are known"),
        (("m.toml", "--retry-failed"), "--retry-failed is not used: nothing was converted before"),
        (("m.toml", "--retry-failed", "--overwrite"), "--retry-failed is not used: --overwrite makes every sample"),
        (("m.toml", "--allow-outside"), "not used: --allow-outside: the rule 'whole' reads no annotations"),
        (("check", "m.toml", "--allow-outside"), "not used: --allow-outside: the rule 'whole' reads no annotations"),
        (("preview", "m.toml", "--allow-outside"), "not used: --allow-outside: the rule 'whole' reads no annotations"),
        ((*FETCH, "--out", "y"), "--out is not used: a single source is only downloaded"),
        ((*FETCH, "--workers", "2"), "--workers is not used: a single source is only downloaded"),
        ((*FETCH, "--crops"), "--crops/--slides is not used: no project of a Cytomine server is named"),
        ((*FETCH, "--connections", "2"), "--connections is not used: no project of a Cytomine server is named"),
    ],
)
def test_an_option_without_an_effect_is_said(
    source: Path, dpconvert: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(source.parent)
    Path("m.toml").write_text(HEAD + SHARE)
    more = () if words[0] == "fetch" else ("--source", "source")
    if words[0] == "m.toml":
        more = (*more, "--out", "out", "--workers", "1")
    bare = FETCH if words[0] == "fetch" else tuple(word for word in words if word[0] != "-" and word != "none")
    plain = dpconvert(*bare, *more)
    assert said not in plain.out + plain.err
    shutil.rmtree("out", ignore_errors=True)
    answer = dpconvert(*words, *more)
    assert said in answer.out + answer.err


def test_nothing_left_out_is_said_where_it_is_to_be_tried_again(source: Path, dpconvert: Call) -> None:
    (source.parent / "m.toml").write_text(HEAD + SHARE)
    words = source.parent / "m.toml", "--source", source, "--out", source.parent / "out", "--workers", "1"
    assert dpconvert(*words).code == 0
    answer = dpconvert(*words, "--retry-failed")
    assert answer.code == 0
    assert "--retry-failed is not used: nothing was left out" in answer.err


# command -> options that always have an effect: on what is done, where, or what is printed
ALWAYS = {
    "all": {"root"},
    "audit": {"shards", "page", "alike", "features", "workers"},
    "check": {"source", "folder", "split"},
    "doctor": set(),
    "fake": {"source", "seed"},
    "fetch": {"source", "to", "accept_licence", "pool"},
    "init": {"folder", "overwrite"},
    "list": set(),
    "pool": {"pool", "root"},
    "preview": {"source", "folder", "slide", "split", "workers"},
    "show": {"source"},
    "unpack": {"shards"},
    "verify": {"shards", "workers", "against"},
}
CONVERSIONS = {
    "workers",
    "limit_memory",
    "limit_seconds",
    "split",
    "limit",
    "samples_per_shard",
    "skip_failed",
    "overwrite",
    "verbose",
}
SAID = {"mpp", "mpp_override", "allow_outside", "image_format", "errata", "retry_failed"}  # as tests show
REFUSED = {"engine", "address", "dense", "lossless_tiles", "no_convert", "host", "projects"}  # where they do not fit
FETCHED = {"out", "workers", "crops", "connections"}


@pytest.mark.parametrize("command", sorted(ALWAYS))
def test_no_option_is_forgotten(command: str) -> None:
    every = {str(one.name) for one in group.commands[command].params} - {"out", "as_json", "quiet", "help_all"}
    known = ALWAYS[command] | SAID | REFUSED | {"fetch": FETCHED, "all": CONVERSIONS}.get(command, set())
    assert every - known == set()
    assert group.commands.keys() == ALWAYS.keys()

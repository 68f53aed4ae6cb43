"""Images with any number of classes, and images with a number: from tables and names to shards and back."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dpconvert import card as cards
from dpconvert.cli import group
from dpconvert.errors import OutputError, ShardError
from dpconvert.source import target
from dpconvert.tasks import verify
from dpconvert.tasks.audit.samples import read_samples
from tests.dpconvert.scenes import manifest
from tests.dpconvert.test_two_meanings import png
from tests.other_labels import CELLS, MANY, converted, draw

IMAGE = png(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    converted(folder)
    return folder


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(group, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.output


def samples(shards: Path) -> dict[str, dict[str, object]]:
    """Key -> the JSON of each sample, as tarfile reads it; all names of each sample must be an image and a JSON."""
    found, names = {}, set()
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                names.add(member.name.partition(".")[2])
                if member.name.endswith(".json"):
                    opened = tar.extractfile(member)
                    assert opened is not None
                    found[member.name.removesuffix(".json")] = json.load(opened)
    assert names == {"png", "json"}, "no cls"
    return found


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "source" / "labels.csv").open(newline="") as file:
        return {row["file"].removesuffix(".png"): row for row in csv.DictReader(file)}


def test_labels_and_numbers_of_the_table_are_in_the_json_and_in_the_index(folder: Path) -> None:
    rows = table(folder)
    many, cells = samples(folder / "shards" / "Many"), samples(folder / "shards" / "Cells")
    for key, row in rows.items():
        labels = [number for number, name in enumerate(("red", "green")) if row[name] == "1"]
        assert many[key]["labels"] == labels
        assert many[key]["label_names"] == [("red", "green")[number] for number in labels]
    assert {key: row["value"] for key, row in cells.items()} == {
        key: float(row["count"]) for key, row in rows.items() if row["count"]
    }
    for task, name in (("Many", "labels"), ("Cells", "value")):
        index = pq.read_table(folder / "shards" / task / "index.parquet").to_pylist()
        stored = many if task == "Many" else cells
        assert {row["key"]: row[name] for row in index} == {key: one[name] for key, one in stored.items()}
        assert "label" not in index[0]


def test_the_card_states_kind_metric_and_unit_and_older_programs_refuse_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, cells = (cards.load(folder / "shards" / name) for name in ("Many", "Cells"))
    assert (many.target, many.metric, many.schema_version, many.unit) == ("labels", "macro_auc", 3, None)
    assert (cells.target, cells.metric, cells.schema_version, cells.unit) == ("value", "pearson", 3, "cells")
    assert sum(split.classes[1] for split in many.splits.values()) == 20
    assert sum(split.samples for split in cells.splits.values()) == 39
    assert all(split.classes == [] for split in cells.splits.values())
    assert "1 row of labels.csv without a label, left out" in cells.notes
    monkeypatch.setattr(cards, "SCHEMA", 2)
    with pytest.raises(ShardError, match="written by a newer version"):
        cards.load(folder / "shards" / "Cells")


def test_a_card_whose_kind_and_metric_disagree_is_refused(folder: Path) -> None:
    body = cards.load(folder / "shards" / "Many").json_body()
    for change in ({"metric": "accuracy"}, {"kind": "classification"}):
        with pytest.raises(ValueError, match="is not scored by"):
            cards.TaskCard.model_validate(body | change)


@pytest.mark.parametrize("task", ["Many", "Cells"])
def test_verify_finds_a_label_that_differs_from_the_index(task: str, folder: Path) -> None:
    card = cards.load(folder / "shards" / task)
    assert run("verify", folder / "shards" / task)[0] == 0
    row = pq.read_table(folder / "shards" / task / "index.parquet").to_pylist()[0]
    with tarfile.open(folder / "shards" / task / row["shard"]) as tar:
        parts = [(m.name, m.offset_data, opened.read()) for m in list(tar)[:2] if (opened := tar.extractfile(m))]
    name = {"Many": "labels", "Cells": "value"}[task]
    assert list(verify._sample(parts, card, row)) == []
    wrong = row | {name: [7] if task == "Many" else float("nan")}
    assert "wrong label" in next(iter(verify._sample(parts, card, wrong)))
    other = row | {name: [0] if row[name] != [0] else [1]} if task == "Many" else row | {name: row[name] + 1}
    assert list(verify._sample(parts, card, other)) == ["JSON differs from the index"]


def test_unpacked_labels_can_be_converted_again(folder: Path, tmp_path: Path) -> None:
    for task, text, key in (("Many", MANY, "labels"), ("Cells", CELLS.replace('"count"', '"value"'), "value")):
        out = tmp_path / task
        assert run("unpack", folder / "shards" / task, "--out", out)[0] == 0
        (tmp_path / "again.toml").write_text(text.replace('"patient"', '"group"'))
        arguments = ["again.toml", "--source", str(out), "--out", str(tmp_path / "shards"), "-q"]
        assert run(tmp_path / arguments[0], *arguments[1:])[0] == 0
        again = samples(tmp_path / "shards" / task)
        before = samples(folder / "shards" / task)
        assert sorted(map(str, (one[key] for one in again.values()))) == sorted(
            map(str, (one[key] for one in before.values()))
        )


def test_preview_and_audit_show_labels_in_words(folder: Path, tmp_path: Path) -> None:
    assert run("preview", folder / "shards", "--out", tmp_path / "p.html", "-q")[0] == 0
    page = (tmp_path / "p.html").read_text()
    assert "cells: lowest to highest" in page
    assert "training, red, green" in page
    assert "3.5 cells" in page
    labels = read_samples([folder / "shards" / name for name in ("Many", "Cells")]).label
    assert set(labels[:40]) == {"none", "red", "green", "red, green"}
    assert set(labels[40:]) == {f"{number / 2:g} cells" for number in range(8)}


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("nan", "line 3: not a number: 'nan'"),
        ("inf", "line 3: not a number: 'inf'"),
        ("1e999", "line 3: not a finite number: '1e999'"),
        ("many", "line 3: not a number: 'many'"),
        ("", "line 3: no number in column 'count'"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(cell: str, told: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "ab":
        (source / f"{name}.png").write_bytes(IMAGE)
    (source / "labels.csv").write_text(f"file,count\na.png,1.5\nb.png,{cell}\n")
    text = CELLS.replace('group = "patient"\nmissing = true\n', "")
    (tmp_path / "my.toml").write_text(text)
    code, found = run("check", tmp_path / "my.toml", "--source", source)
    assert (code, told in found) == (1, True), found


def test_numbers_may_have_decimal_commas() -> None:
    assert target.of_number("2,5") == "2.5"
    assert target.of_number("1.234", ".") == "1.234"
    assert target.of_number("-0") == "0.0"
    with pytest.raises(ValueError, match="decimals or thousands"):
        target.of_number("1,234")


def test_equal_numbers_are_refused(tmp_path: Path) -> None:
    source = draw(tmp_path / "source", 4)
    (source / "labels.csv").write_text("file,count,patient\n" + "".join(f"0{n}.png,3,p{n}\n" for n in range(4)))
    (tmp_path / "my.toml").write_text(CELLS)
    code, told = run("check", tmp_path / "my.toml", "--source", source)
    assert code == 1
    assert "all 4 samples have the number 3: there is nothing to learn" in told


def labels_of(tmp_path: Path, rows: str, layout: str, head: str = 'classes = ["a", "b", "c"]') -> dict[str, object]:
    source = tmp_path / "source"
    draw(source, 5)
    (source / "labels.csv").write_text(rows)
    (tmp_path / "my.toml").write_text(
        f'task = "My"\nkind = "multilabel"\n{head}\nshape = "table"\n[layout]\nfile = "{{file}}"\n{layout}\n'
        "[split.strict]\nshare = [1, 0, 0]\n"
    )
    code, told = run(tmp_path / "my.toml", "--source", source, "--out", tmp_path / "shards", "-q")
    assert code == 0, told
    return {key: one["label_names"] for key, one in samples(tmp_path / "shards" / "My").items()}


def test_a_cell_may_hold_several_labels(tmp_path: Path) -> None:
    rows = "file|what\n00.png|B, a\n01.png|none\n02.png|c\n03.png|a,a\n04.png|?\n"
    found = labels_of(tmp_path, rows, 'label = "what"\nseparator = ","\nnone = ["none"]\nskip = ["?"]\nmissing = true')
    assert found == {"00": ["a", "b"], "01": [], "02": ["c"], "03": ["a"]}
    assert "1 row of labels.csv that `skip` names, left out" in cards.load(tmp_path / "shards" / "My").notes


def test_classes_are_those_found_where_the_manifest_names_none(tmp_path: Path) -> None:
    rows = "file,what\n00.png,x;y\n01.png,\n02.png,y\n03.png,x\n04.png,y\n"
    found = labels_of(tmp_path, rows, 'label = "what"\nnone = [""]', head="")
    assert found == {"00": ["x", "y"], "01": [], "02": ["y"], "03": ["x"], "04": ["y"]}


@pytest.mark.parametrize(
    ("kind", "layout", "told"),
    [
        ("classification", 'value = "count"', "layout.value: kind 'classification' does not read it"),
        ("multilabel", 'value = "count"', "layout.value: kind 'multilabel' does not read it"),
        ("regression", 'label = "count"', "layout.label: kind 'regression' does not read it"),
        ("multilabel", 'label = "what"\nindicators = ["red", "green"]', "`label` and `indicators` exclude each other"),
        ("multilabel", 'indicators = ["red"]', "layout.indicators: not one column for each of `classes`"),
        ("multilabel", 'indicators = ["count", "green"]', "neither 0 nor 1: '0.5'"),
        ("multilabel", 'indicators = ["green", "red"]', "found 'green' for 'red'"),
        ("regression", "", "layout.value: is missing"),
        ("classification", "", "layout.label: is missing"),
    ],
)
def test_keys_that_do_not_suit_the_kind_are_refused(kind: str, layout: str, told: str, tmp_path: Path) -> None:
    source = draw(tmp_path / "source", 4)
    classes = "" if kind == "regression" else 'classes = ["red", "green"]\n'
    (tmp_path / "my.toml").write_text(
        f'task = "My"\nkind = "{kind}"\n{classes}shape = "table"\n[layout]\nfile = "{{file}}"\n{layout}\n'
    )
    code, found = run("check", tmp_path / "my.toml", "--source", source)
    assert code == 1
    assert told in found


def test_names_of_files_may_state_indicators_labels_or_a_number(tmp_path: Path) -> None:
    drawn = draw(tmp_path / "drawn", 4)
    source = tmp_path / "source"
    source.mkdir()
    for number, bits in enumerate(("[1, 0, 1]", "[0, 0, 0]", "[1, 1, 0]", "[0, 1, 0]")):
        data = (drawn / f"{number:02}.png").read_bytes()
        (source / f"70{number}-x-{bits}.png").write_bytes(data)
    patterns = {
        "bits": r"""(?P<name>(?P<group>\d+)-x-\[(?P<indicators>[01, ]+)\])\.png$""",
        "value": r"""(?P<name>(?P<value>\d+)-x-.+)\.png$""",
    }
    for name, pattern in patterns.items():
        kind = "regression" if name == "value" else 'multilabel"\nclasses = ["t", "s", "n"]\norgan = "'
        (tmp_path / "my.toml").write_text(
            f'task = "{name}"\nkind = "{kind}"\nshape = "folders"\n[files.images]\npattern = \'{pattern}\'\n'
            "[split.strict]\nshare = [1, 0, 0]\n"
        )
        code, told = run(tmp_path / "my.toml", "--source", source, "--out", tmp_path / "shards", "-q")
        assert code == 0, told
    found = samples(tmp_path / "shards" / "bits")
    assert sorted(map(str, (one["labels"] for one in found.values()))) == ["[0, 1]", "[0, 2]", "[1]", "[]"]
    assert sorted(float(str(one["value"])) for one in samples(tmp_path / "shards" / "value").values()) == [
        700,
        701,
        702,
        703,
    ]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"kind": "regression"}, "kind 'regression' has no `classes`"),
        ({"kind": "multilabel", "unit": "cells"}, "`unit` is that of numbers"),
        ({"unit": "cells"}, "`unit` is that of numbers"),
        (
            {"kind": "multilabel", "rule": {"type": "presence", "positive": ["yes"], "size": 8}},
            "needs the rule 'whole'",
        ),
    ],
)
def test_a_manifest_whose_facts_exclude_each_other_is_refused(facts: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        manifest(**facts)  # type: ignore[arg-type]


def checked(tmp_path: Path, kind: str, layout: str, rows: str) -> tuple[int, str]:
    """What `check` says of a table about a.png, b.png, c.png."""
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / f"{name}.png").write_bytes(IMAGE)
    (source / "labels.csv").write_text(rows)
    classes = "" if kind == "regression" else 'classes = ["x", "y"]\n'
    (tmp_path / "my.toml").write_text(
        f'task = "My"\nkind = "{kind}"\n{classes}shape = "table"\n[layout]\nfile = "{{file}}"\n{layout}\n'
        "[split.strict]\nshare = [1, 0, 0]\n"
    )
    return run("check", tmp_path / "my.toml", "--source", source)


@pytest.mark.parametrize(
    ("kind", "layout", "told"),
    [
        ("multilabel", 'indicators = ["x", "x"]', "layout.indicators: column 'x' is named twice"),
        ("multilabel", 'label = "x"\nnone = ["X"]', "layout.none: 'X' is one of `classes`"),
        ("multilabel", 'indicators = ["x", "y"]\nseparator = ","', "layout.separator: not read"),
        ("regression", 'value = "x"\nseparator = ","', "layout.separator: not read with kind 'regression'"),
        ("classification", 'label = "x"\nnone = []', "layout.none: not read with kind 'classification'"),
    ],
)
def test_keys_that_contradict_each_other_or_are_not_read_are_refused(
    kind: str, layout: str, told: str, tmp_path: Path
) -> None:
    code, found = checked(tmp_path, kind, layout, "file,x,y\na.png,1,0\nb.png,0,1\nc.png,1,1\n")
    assert (code, told in found) == (1, True), found


def test_a_cell_of_separators_alone_is_no_statement_that_an_image_has_no_class(tmp_path: Path) -> None:
    code, told = checked(tmp_path, "multilabel", 'label = "what"', "file,what\na.png,x;y\nb.png,; ;\nc.png,y\n")
    assert code == 1
    assert "labels.csv, line 3: no label; found '; ;'" in told


def test_without_a_separator_a_cell_is_one_label_and_idle_texts_of_none_are_reported(tmp_path: Path) -> None:
    layout = 'label = "what"\nseparator = ""\nnone = ["nothing", "-"]'
    code, told = checked(tmp_path, "multilabel", layout, "file,what\na.png,X\nb.png,Nothing\nc.png,y\n")
    assert code == 0, told
    assert "not used: '-' in `none` under [layout]" in told


def test_check_shows_several_labels_in_words(tmp_path: Path) -> None:
    _, told = checked(tmp_path, "multilabel", 'label = "what"\nnone=[""]', "file,what\na.png,y;x\nb.png,\nc.png,y\n")
    assert [line.split()[3:-1] for line in told.splitlines() if line.startswith(("a.png", "b.png"))] == [
        ["x,", "y"],
        ["none"],
    ]


def test_a_set_without_any_class_is_not_called_empty(tmp_path: Path) -> None:
    rows = "file,what\na.png,none\nb.png,none\nc.png,none\n"
    _, told = checked(tmp_path, "multilabel", 'label = "what"\nnone = ["none"]', rows)
    assert "no sample in train" not in told
    assert "class 'x' has no sample in the whole task" in told


@pytest.mark.parametrize("cells", [("1.000", "2,5"), ("2,5", "1.000")])
def test_a_point_before_three_digits_may_mean_thousands_where_others_have_decimal_commas(
    cells: tuple[str, str], tmp_path: Path
) -> None:
    rows = f"file;n\na.png;{cells[0]}\nb.png;{cells[1]}\nc.png;3\n"
    code, told = checked(tmp_path, "regression", 'value = "n"', rows)
    assert code == 1
    assert "may be a thousand, since '2,5' (labels.csv, line" in told


@pytest.mark.parametrize(
    ("cells", "may_be_thousands"),
    [("1.234 2.000 750", True), ("1.234 0.125 3", False), ("1.234 2.5 3", False), ("0.125 0.250 3", False)],
)
def test_numbers_that_may_all_be_thousands_are_noted(cells: str, may_be_thousands: bool, tmp_path: Path) -> None:
    rows = "file;n\n" + "".join(f"{name}.png;{n}\n" for name, n in zip("abc", cells.split(), strict=True))
    code, told = checked(tmp_path, "regression", 'value = "n"', rows)
    assert code == 0
    assert ("three digits after it in all cells, such as 1.234 (labels.csv, line 2)" in told) == may_be_thousands


@pytest.mark.parametrize("text", ["1.234,5", "1,234.5", "1 234", "1'234'567.8", "1\u202f234,5", "1.000.000", "1.234"])
def test_a_separator_of_thousands_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="has a separator of thousands; write numbers without it"):
        target.of_number(text, "," if text == "1.234" else "")


def test_a_number_is_quoted_as_the_table_writes_it(tmp_path: Path) -> None:
    rows = "file;n\na.png;1.000\nb.png;2,5\nc.png;3\n"
    _, told = checked(tmp_path, "regression", 'value = "n"\ndecimal = ","', rows)
    assert "line 2: '1.000' has a separator of thousands; write numbers without it" in told


@pytest.mark.parametrize(
    ("text", "bits"), [("[1, 0, 1]", "101"), ("1-0-1", "101"), ("011", "011"), ("1_0", "10"), ("(0 0)", "00")]
)
def test_digits_in_names_are_indicators(text: str, bits: str) -> None:
    assert "".join(target.bits_of(text)) == bits


@pytest.mark.parametrize("text", ["[1, -1]", "-1", "1--1", "12", "", "[]", "1.0"])
def test_other_numbers_are_no_indicators(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of 0 and 1"):
        target.bits_of(text)


def in_names(tmp_path: Path, files: list[str], layout: str) -> tuple[int, str]:
    for name in files:
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / name).write_bytes(IMAGE)
    (tmp_path / "my.toml").write_text(
        f'task = "My"\nkind = "multilabel"\nclasses = ["x", "y"]\nshape = "folders"\n[layout]\n{layout}\n'
        "[files.images]\npattern = '(?P<name>\\d+)(?:_(?P<labels>[^/]*))?\\.png$'\n[split.strict]\nshare = [1, 0, 0]\n"
    )
    return run("check", tmp_path / "my.toml", "--source", tmp_path / "source")


@pytest.mark.parametrize("file", ["3_.png", "3.png"])
def test_a_name_without_labels_is_refused_unless_none_has_an_empty_text(file: str, tmp_path: Path) -> None:
    files = ["1_x+y.png", "2_Z.png", file]
    code, told = in_names(tmp_path, files, 'separator = "+"\nlabels = {z = "y"}')
    assert code == 1
    assert f"{file}: no label; found ''" in told
    code, told = in_names(tmp_path, files, 'separator = "+"\nlabels = {z = "y"}\nnone = [""]')
    assert code == 0, told


def test_a_set_that_loses_all_samples_to_unreadable_images_is_named_and_options_read_as_typed(
    folder: Path, tmp_path: Path
) -> None:
    source, rows = draw(tmp_path / "source"), pq.read_table(folder / "shards" / "Cells" / "index.parquet").to_pylist()
    for row in rows:
        if row["split"] == "val":
            image = source / f"{row['key'].rpartition('/')[2]}.png"
            image.write_bytes(image.read_bytes()[:200])
    (tmp_path / "cells.toml").write_text(CELLS)
    arguments = (tmp_path / "cells.toml", "--source", source, "--out", tmp_path / "shards", "--workers", "1")
    code, told = run(*arguments, "--skip-failed")
    assert (code, "no sample in val" in told) == (1, True), told
    assert "no sample in val" in cards.load(tmp_path / "shards" / "Cells").notes
    with pytest.raises(OutputError, match="expected no --skip-failed; found --skip-failed; choose another --out"):
        run(*arguments)

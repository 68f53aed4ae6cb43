"""From records to the rows of shards: names, order, limits, errata; all before a pixel is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpconvert.errors import SourceError, UsageError
from dpconvert.manifest.model import Manifest
from dpconvert.plan import known_errors, plan, plan_rows
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from dpconvert.source.record import Box, Record, SourceImage
from tests.dpconvert.scenes import manifest

Make = Callable[..., Plan]
FOLDERS: dict[str, Any] = {
    "shape": "folders",
    "files": {"images": {"pattern": r"(?P<class>\w+)/(?P<name>(?P<group>\w+?)_\w+)\.png$"}},
}
ERRATA = [
    {"name": "wrong", "pictures": "^p1_", "reason": "r", "citation": "c"},
    {"name": "doubtful", "pictures": "^p2_", "reason": "r", "citation": "c", "drops": "negatives"},
    {"name": "perhaps", "pictures": "^p3_", "reason": "r", "citation": "c", "default": False},
]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The plan of images `class/patient_number.png`."""

    def made(names: Sequence[str], options: Mapping[str, Any] | None = None, **facts: Any) -> Plan:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
        known = manifest(**(FOLDERS | facts))
        chosen = Options.model_validate(options or {})
        return plan.make(Source.open(tmp_path, known), chosen, 1, Reporter(quiet=True))

    return made


def names(made: Plan) -> set[str]:
    return {row.source_image for row in made.rows}


def tiles(patients: int, each: int = 2) -> list[str]:
    return [f"{label}/p{p}_{label}{k}.png" for p in range(patients) for label in ("no", "yes") for k in range(each)]


def test_rows_are_in_the_order_of_shards_and_shards_of_one_set_are_filled_one_by_one(make: Make) -> None:
    made = make(tiles(10), {"samples_per_shard": 7})
    shards = list(made.shards())
    assert shards == sorted(shards, key=lambda name: (["train", "val", "test"].index(name[: name.index("-")]), name))
    assert sum(len(rows) for rows in made.shards().values()) == 40
    for split in ("train", "val", "test"):
        sizes = [len(rows) for name, rows in made.shards().items() if name.startswith(split)]
        assert sizes[:-1] == [7] * (len(sizes) - 1)
        assert all(row.split == split for rows in made.shards().values() for row in rows if row.shard.startswith(split))
    assert all(re.fullmatch(r"(train|val|test)-\d{6}\.tar", name) for name in shards)


def test_a_plan_survives_being_written_down(make: Make) -> None:
    made = make(tiles(4))
    again = Plan.from_lines(made.lines())
    assert again == made
    assert again.digest() == made.digest()


def test_groups_are_whole_and_carry_the_namespace(make: Make) -> None:
    made = make(tiles(10), group={"kind": "patient", "namespace": "ccipd"})
    assert {row.group for row in made.rows} == {f"ccipd:p{n}" for n in range(10)}
    assert len({(row.group, row.split) for row in made.rows}) == 10


def test_a_limit_takes_the_same_samples_when_it_grows(make: Make) -> None:
    few, more = (make(tiles(10, 5), {"limit": n}) for n in (2, 4))
    assert {(row.split, row.label) for row in few.rows} == {(s, n) for s in ("train", "val", "test") for n in (0, 1)}
    assert len(few.rows) == 12
    assert len(more.rows) == 24
    assert names(few) < names(more)


@pytest.mark.parametrize(
    ("chosen", "gone"),
    [
        ("none", set()),
        ("default", {"p1_no0", "p1_yes0", "p2_no0"}),
        ("perhaps", {"p3_no0", "p3_yes0"}),
        ("doubtful, perhaps", {"p2_no0", "p3_no0", "p3_yes0"}),
    ],
)
def test_errata_drop_images_or_their_negatives(chosen: str, gone: set[str], make: Make) -> None:
    every = {name.rpartition("/")[2].removesuffix(".png") for name in tiles(5, 1)}
    assert names(make(tiles(5, 1), {"errata": chosen}, errata=ERRATA)) == every - gone


SAMPLES = {"name": "labels", "reason": "r", "citation": "c"}


def test_an_erratum_lists_images_by_name_and_what_it_lists_in_vain_is_noted(make: Make) -> None:
    """A name is no pattern: `p1_no.` is no image, although the pattern would match one."""
    listed = ["p1_no0", "p1_no.", "p9_no0"]
    made = make(tiles(5, 1), errata=[SAMPLES | {"samples": listed}])
    assert names(made) == {name.rpartition("/")[2].removesuffix(".png") for name in tiles(5, 1)} - {"p1_no0"}
    assert made.notes == ["not used: 'p1_no.', 'p9_no0', listed under [[errata]] and no image here"]


def test_an_erratum_lists_single_patches_of_an_image(make: Make) -> None:
    facts = {"rule": {"type": "tiles", "size": 2}, "split": {"strict": {"share": [1, 0, 0]}}}
    listed = ["p1_no0#xywh=2,0,2,2", "p1_no0#xywh=1,0,2,2", "p1_yes0"]
    made = make(["no/p1_no0.png", "yes/p1_yes0.png"], errata=[SAMPLES | {"samples": listed}], **facts)
    assert sorted((row.source_image, row.box) for row in made.rows) == [
        ("p1_no0", (0, 0, 2, 2)),
        ("p1_no0", (0, 2, 2, 2)),
        ("p1_no0", (2, 2, 2, 2)),
    ]
    assert "not used: 'p1_no0#xywh=1,0,2,2', listed under [[errata]] and the frame of no sample" in made.notes


def test_two_errata_of_one_name_are_turned_on_together(make: Make) -> None:
    both = [SAMPLES | {"samples": ["p1_no0"], "default": False}, SAMPLES | {"samples": ["p2_no0"], "default": False}]
    assert {"p1_no0", "p2_no0"} <= names(make(tiles(5, 1), errata=both))
    assert not {"p1_no0", "p2_no0"} & names(make(tiles(5, 1), {"errata": "labels"}, errata=both))


def test_errata_without_a_list_of_samples_leave_the_digest_of_a_manifest_as_it_was() -> None:
    assert '"samples"' not in manifest(errata=ERRATA).model_dump_json()
    assert manifest(errata=ERRATA).digest != manifest(errata=[SAMPLES | {"samples": []}]).digest


@pytest.mark.parametrize(
    ("erratum", "what"),
    [
        (SAMPLES, "an erratum needs `pictures`, a pattern, or `samples`"),
        (SAMPLES | {"samples": ["a"], "drops": "negatives"}, "dropped whatever their class"),
    ],
)
def test_an_erratum_that_says_nothing_or_two_things_is_refused(erratum: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        manifest(errata=[erratum])


def test_an_erratum_that_the_source_does_not_have_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"toy: no erratum 'wrnog'; this source has: none, default, wrong"):
        known_errors.errata(manifest(errata=ERRATA), "wrnog")


def test_a_label_that_is_no_class_is_an_error(make: Make) -> None:
    with pytest.raises(SourceError, match=r"maybe/p1_0.png: 'maybe' is not a class of this task; expected no, yes"):
        make([*tiles(3), "maybe/p1_0.png"])


def test_classes_that_the_manifest_does_not_name_are_those_that_occur_in_order(make: Make) -> None:
    assert make([*tiles(3), "maybe/p1_0.png"], classes=[]).classes == ["maybe", "no", "yes"]


def test_two_images_of_one_name_are_an_error(make: Make) -> None:
    with pytest.raises(SourceError, match=r"two images of one name; found no/p1_0.png and yes/p1_0.png; let .* folder"):
        make(["no/p1_0.png", "yes/p1_0.png"])


def test_no_image_at_all_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images in a folder per class here|no matching files here"):
        make([])
    with pytest.raises(SourceError, match=r"nothing to convert here; see `dpconvert show toy.toml`"):
        make(["no/p1_0.png"], errata=ERRATA)


def test_a_class_that_a_set_lacks_is_noted(make: Make) -> None:
    made = make(["no/a_0.png", "yes/a_1.png", "no/b_0.png"], split={"strict": {"test": ["b"]}})
    assert made.notes == ["no sample in val", "no sample of class 'yes' in test"]


def test_images_without_a_sample_are_noted(make: Make) -> None:
    made = make(tiles(3), rule={"type": "tiles", "size": 4})
    assert made.notes == []
    with pytest.raises(SourceError, match=r"none of 12 images gives a sample; the rule's patches may be larger"):
        make(tiles(3), rule={"type": "tiles", "size": 5})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120), unique=True, max_size=20))
def test_keys_are_unique_plain_and_short_whatever_the_names(given: list[str]) -> None:
    keys = plan._keys([Record(SourceImage(name, ("f",), "g"), "no") for name in given])
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,95}", key) for key in keys)


def test_keys_by_hand() -> None:
    image = SourceImage("Case 1/A.b", ("f",), "g")
    records = [Record(image, "no"), Record(image, "no", Box(1, 2, 3, 4)), Record(image, "no", suffix="x_Y")]
    assert plan._keys(records) == ["case-1-a-b", "case-1-a-b_1_2_3_4", "case-1-a-b_x_y"]


def test_keys_of_samples_in_one_place_differ() -> None:
    image = SourceImage("a", ("f",), "g")
    keys = plan._keys([Record(image, "no", Box(0, 0, 1, 1)), Record(image, "no", Box(0, 0, 1, 1))])
    assert len(set(keys)) == 2


def test_options_tell_how_images_are_stored() -> None:
    known: Manifest = manifest(image={"format": "jpeg", "quality": 80})
    assert Options().image(known).format == "jpeg"
    assert Options(image_format="png").image(known).format == "png"
    assert Options(image_format="jpeg").image(known).quality == 80


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.dictionaries(st.text('aé"', min_size=1), st.text()),
)
def test_the_line_of_a_row_is_the_json_of_its_fields(name: str, whole: bool, attributes: dict[str, str]) -> None:
    box, stored = (None, None) if whole else (Box(1, 2, 3, 4), (5, 6))
    row = plan_rows.PlanRow("k", "val", "val-000000.tar", 1, f"n:{name}", name, (name, "b"), 2, box, stored, attributes)
    fields = [getattr(row, field) for field in plan_rows.PlanRow.__slots__ if field != "annotations"]
    assert row.line() == json.dumps(fields)
    assert plan_rows._row(json.loads(row.line())) == row
    drawn = replace(row, annotations=plan_rows.AnnotationFiles((name, "m.png"), attributes, exhaustive=whole))
    assert drawn.line() == json.dumps([*fields, drawn.annotations])
    assert plan_rows._row(json.loads(drawn.line())) == drawn


def test_patches_of_an_image_in_strips_go_row_by_row_and_others_block_by_block() -> None:
    boxes = [Box(x, y, 256, 256) for y in (0, 256, 512, 4096) for x in (0, 256, 512, 4096)]
    records = [Record(SourceImage("p", ("f",), "g"), "no", box) for box in boxes]
    assert sorted(records, key=lambda r: plan._block(r, True)) == records
    by_block = sorted(records, key=lambda r: plan._block(r, False))
    assert [boxes.index(r.box) for r in by_block] == [0, 1, 4, 5, 2, 6, 8, 9, 10, 3, 7, 11, 12, 13, 14, 15]

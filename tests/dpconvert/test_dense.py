"""Dense targets: masks, points and boxes beside the label of each sample, from annotations to verified shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpconvert import card as cards
from dpconvert.annotations import Annotation, Annotations, LabelMask, raster
from dpconvert.manifest.dense import Dense
from dpconvert.plan.targets import ImageTargets, never_met
from dpconvert.tasks.overlay import overlaid
from tests.dpconvert.conftest import Answer, Converted
from tests.dpconvert.test_shapes import HEAD, Make, make

__all__ = ["make"]
Cli = Callable[..., Answer]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def stored(folder: Path) -> dict[str, dict[str, bytes]]:
    """Key -> extension -> bytes of every sample of a task, in the order of the tars."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                found.setdefault(key, {})[extension] = content.read()
    return found


def masks_of(folder: Path) -> dict[str, Any]:
    return {key: np.asarray(Image.open(io.BytesIO(parts["seg.png"]))) for key, parts in stored(folder).items()}


def dense(**tables: Any) -> Dense:
    return Dense.model_validate(tables)


def areas(*named: tuple[str, Any]) -> Annotations:
    return Annotations([Annotation(shape, label, str(i)) for i, (label, shape) in enumerate(named)])


# --- the raster


ring = st.lists(st.tuples(st.floats(-4, 16), st.floats(-4, 16)), min_size=3, max_size=9)


@given(ring, ring, st.integers(1, 15), st.integers(1, 15))
def test_shares_of_pixels_are_the_exact_areas(outer: Any, inner: Any, width: int, height: int) -> None:
    area = shapely.difference(shapely.Polygon(outer).buffer(0), shapely.Polygon(inner).buffer(0))
    frame = 1, 2, 10, 9
    found = raster.shares(area, frame, (width, height))
    across, down = 10 / width, 9 / height
    for row in range(height):
        for column in range(width):
            pixel = shapely.box(1 + column * across, 2 + row * down, 1 + (column + 1) * across, 2 + (row + 1) * down)
            exact = shapely.intersection(pixel, area).area / pixel.area
            assert found[row, column] == pytest.approx(exact, abs=1e-7)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=4, max_size=4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_shares_of_a_mask_are_the_exact_areas_of_its_cells(
    values: Any, width: int, height: int, x: int, y: int
) -> None:
    """The mask has half the pixels of its image along x and a third of them along y."""
    mask = LabelMask(np.array(values), {0: "a", 1: "b", 2: "c"}, 12, 12)
    frame = x, y, 7, 9
    cells = [shapely.box(2 * j, 3 * i, 2 * j + 2, 3 * i + 3) for i in range(4) for j in range(6) if values[i][j] == 1]
    exact = raster.shares(shapely.union_all(cells), frame, (width, height))
    assert raster.of_mask(mask, [1], frame, (width, height)) == pytest.approx(exact, abs=1e-9)


def test_a_hole_is_a_hole_and_what_lies_beyond_the_frame_does_not_count() -> None:
    square = shapely.Polygon([(-2, -2), (6, -2), (6, 6), (-2, 6)], [[(1, 1), (2, 1), (2, 2), (1, 2)]])
    assert raster.shares(square, (0, 0, 4, 4), (4, 4)).tolist() == [
        [1, 1, 1, 1],
        [1, 0, 1, 1],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
    ]
    assert raster.shares(square, (0, 0, 4, 4), (2, 2)).tolist() == [[0.75, 1], [1, 1]]


# --- the mask


def test_a_pixel_has_the_class_that_covers_most_of_it() -> None:
    """Halves of pixels go to the annotation, less than half to what is not annotated."""
    kept = dense(seg={"classes": ["a", "b"]})
    found = areas(("a", shapely.box(0, 0, 1.5, 1)), ("a", shapely.box(2, 0, 2.49, 1)))
    assert ImageTargets(kept, found).mask((0, 0, 3, 1), (3, 1)).tolist() == [[0, 0, 255]]


def test_a_later_label_covers_an_earlier_one_and_ignored_areas_cover_all() -> None:
    found = areas(("b", shapely.box(1, 0, 3, 1)), ("a", shapely.box(0, 0, 2, 1)), ("x", shapely.box(2, 0, 3, 1)))
    frame: Any = ((0, 0, 4, 1), (4, 1))
    over = dense(seg={"classes": ["a", "b"], "ignore": ["x"]})
    assert ImageTargets(over, found).mask(*frame).tolist() == [[0, 1, 255, 255]]
    under = dense(seg={"classes": ["a", "b"], "labels": {"b": "b", "a": "a"}, "ignore": ["x"], "unannotated": "a"})
    assert ImageTargets(under, found).mask(*frame).tolist() == [[0, 0, 255, 0]]
    skipped = dense(seg={"classes": ["a", "b"], "skip": ["x"], "unannotated": "a"})
    assert ImageTargets(skipped, found).mask(*frame).tolist() == [[0, 1, 1, 0]]


def test_parts_of_one_class_add_up_and_of_equal_shares_the_later_label_wins() -> None:
    kept = dense(seg={"classes": ["a", "b"], "labels": {"a1": "a", "b": "b", "a2": "a"}})
    pixel: Any = ((0, 0, 1, 1), (1, 1))
    thirds = areas(
        ("a1", shapely.box(0, 0, 0.3, 1)), ("b", shapely.box(0.3, 0, 0.7, 1)), ("a2", shapely.box(0.7, 0, 1, 1))
    )
    assert ImageTargets(kept, thirds).mask(*pixel).tolist() == [[0]]
    halves = areas(("a1", shapely.box(0, 0, 0.5, 1)), ("b", shapely.box(0.5, 0, 1, 1)))
    assert ImageTargets(kept, halves).mask(*pixel).tolist() == [[0]]  # the last label of "a" comes after "b"
    swapped = dense(seg={"classes": ["a", "b"], "labels": {"a1": "a", "a2": "a", "b": "b"}})
    assert ImageTargets(swapped, halves).mask(*pixel).tolist() == [[1]]


def test_a_label_mask_is_cropped_and_reduced_by_the_majority() -> None:
    values = np.array([[0, 0, 1, 1], [0, 2, 1, 2], [0, 1, 2, 2], [0, 1, 2, 1]])
    mask = LabelMask(values, {0: "", 1: "b", 2: "c"}, 4, 4)
    kept = ImageTargets(dense(seg={"classes": ["b", "c"]}), mask)
    assert kept.mask((1, 0, 3, 2), (3, 2)).tolist() == [[255, 0, 0], [1, 0, 1]]
    assert kept.mask((0, 0, 4, 4), (2, 2)).tolist() == [[255, 0], [0, 1]]  # the tie of 0 and "b" goes to the class


def test_masks_of_polygons_and_of_their_pixels_agree() -> None:
    cells = np.zeros((8, 8), int)
    cells[2:6, 3:7] = 1
    kept = dense(seg={"classes": ["no", "yes"], "unannotated": "no"})
    drawn = ImageTargets(kept, areas(("yes", shapely.box(3, 2, 7, 6))))
    painted = ImageTargets(kept, LabelMask(cells, {0: "no", 1: "yes"}, 8, 8))
    for size in ((8, 8), (4, 4), (3, 5), (16, 16)):
        assert (drawn.mask((0, 0, 8, 8), size) == painted.mask((0, 0, 8, 8), size)).all()


# --- the shards


MASKS = """shape = "masks"
kind = "segmentation"
layout = {values = {0 = "no", 255 = "yes", 7 = "void"}}
rule = {type = "middle", size = 4, ignore = ["void"]}
split = {strict = {}}
[dense.seg]
classes = ["no", "yes"]
ignore = ["void"]
"""


def draw_masks(source: Path) -> Any:
    """Two images of 8 x 4 with their masks; returns the first mask."""
    values = np.array([[0] * 4 + [255] * 4] * 4, np.uint8)
    values[1, 1], values[2, 2], values[3, 7] = 255, 7, 0
    for number in range(2):
        for folder in ("images", "masks"):
            (source / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 8, 3), 100 + number, np.uint8)).save(source / "images" / f"{number}.png")
        Image.fromarray(values).save(source / "masks" / f"{number}.png")
    return values


def test_masks_beside_images_are_kept_for_every_patch(make: Make, tmp_path: Path) -> None:
    values = draw_masks(tmp_path / "source")
    rows = make(MASKS)
    wanted = np.select([values == 255, values == 7], [1, 255], 0)
    folder = tmp_path / "out" / "Mine"
    found, samples = masks_of(folder), stored(folder)
    assert [*samples[rows[0]["key"]]] == ["png", "cls", "seg.png", "json"]
    for row in rows:
        crop = wanted[:, row["x"] : row["x"] + 4]
        assert (found[row["key"]] == crop).all()
        data = (folder / row["shard"]).read_bytes()[row["seg_offset"] :][: row["seg_length"]]
        assert data == samples[row["key"]]["seg.png"]
        assert Image.open(io.BytesIO(data)).mode == "L"
    card = json.loads((folder / "task.json").read_bytes())
    assert card["dense"] == {"seg": {"classes": ["no", "yes"], "ignore": 255, "metric": "dice"}}
    assert cards.load(folder).dense is not None


def test_without_the_table_every_byte_is_as_before(make: Make, tmp_path: Path) -> None:
    draw_masks(tmp_path / "source")
    plain = MASKS.partition("[dense")[0]
    make(plain)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "Mine").iterdir() if path.is_file()}
    optional = MASKS.replace("[dense.seg]", "[dense]\noptional = true\n[dense.seg]")
    make(optional)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out" / "Mine").iterdir() if path.is_file()}
    assert before == after
    assert "dense" not in json.loads(after["task.json"])
    make(optional, "--dense")
    kept = json.loads((tmp_path / "out" / "Mine" / "task.json").read_bytes())
    assert kept["dense"]["seg"]["classes"] == ["no", "yes"]
    assert kept["options"]["dense"] is True


def test_dense_without_a_table_is_refused(make: Make, tmp_path: Path) -> None:
    draw_masks(tmp_path / "source")
    told = make(MASKS.partition("[dense")[0], "--dense", fails=True)
    assert "the manifest states no dense targets" in told


def test_a_label_that_the_masks_do_not_know_is_refused(make: Make, tmp_path: Path) -> None:
    draw_masks(tmp_path / "source")
    told = make(MASKS.replace('ignore = ["void"]\n', ""), fails=True)
    assert "unknown annotation label 'void'" in told
    assert "[dense.seg]" in told


def test_the_longest_key_leaves_room_for_the_mask_in_the_names_of_a_tar(make: Make, tmp_path: Path) -> None:
    draw_masks(tmp_path / "source")
    for folder in ("images", "masks"):
        for number, path in enumerate(sorted((tmp_path / "source" / folder).iterdir())):
            path.rename(path.with_name("x" * 120 + "!?"[number] + ".png"))
    rows = make(MASKS)
    assert max(len(f"{row['key']}.seg.png") for row in rows) == 100
    assert len({row["key"] for row in rows}) == len(rows)


# --- points and boxes


def targets(annotations: Any, **tables: Any) -> ImageTargets:
    return ImageTargets(dense(**tables), annotations)


POINTS = {"classes": ["a", "b"], "radius_px": 3}


def test_points_are_centres_in_stored_pixels_of_the_frame_that_holds_them() -> None:
    found = areas(
        ("b", shapely.Point(10, 20)),
        ("a", shapely.box(11, 20, 13, 24)),
        ("a", shapely.Point(14, 21)),
        ("other", shapely.Point(12, 21)),
    )
    kept = targets(found, points=POINTS)
    assert kept.objects((10, 20, 4, 6), (4, 6)) == {"points": [[0, 0, 1], [2, 2, 0]]}
    assert kept.objects((10, 20, 4, 6), (8, 3)) == {"points": [[0, 0, 1], [4, 1, 0]]}
    assert kept.objects((14, 20, 4, 6), (4, 6)) == {"points": [[0, 1, 0]]}
    assert kept.objects((0, 0, 4, 6), (4, 6)) == {"points": []}


def test_rounding_leaves_points_inside_the_image() -> None:
    kept = targets(areas(("a", shapely.Point(9.9999, 1 / 3))), points=POINTS)
    assert kept.objects((0, 0, 10, 10), (10, 10)) == {"points": [[9.99, 0.33, 0]]}


def test_boxes_belong_to_the_frame_of_their_centre_and_are_clipped_to_it() -> None:
    kept = targets(
        areas(("a", shapely.box(-2, 1, 6, 3)), ("b", shapely.box(3, 0, 9, 2))), boxes={"classes": ["a", "b"]}
    )
    assert kept.objects((0, 0, 4, 4), (8, 8)) == {"boxes": [[0, 2, 8, 6, 0]]}
    assert kept.objects((4, 0, 4, 4), (4, 4)) == {"boxes": [[0, 0, 4, 2, 1]]}


def test_classes_that_no_image_shows_are_noted() -> None:
    """The mask's table knows 2, but no cell has it; of the points, the label is misspelt."""
    tables = {
        "seg": {"classes": ["rest", "disc", "ring"], "labels": {"d": "disc", "r": "ring"}, "unannotated": "rest"},
        "points": {"classes": ["disc"], "labels": {"D": "disc"}, "radius_px": 3},
    }
    dense = Dense.model_validate(tables)
    mask = LabelMask(np.array([[0, 1]]), {0: "", 1: "d", 2: "r"}, 2, 1)
    met = ImageTargets(dense, mask).present()
    assert [*never_met(dense, met)] == [
        "[dense]: no image has masks of 'ring'",
        "[dense]: no image has points of 'disc'",
    ]
    assert [*never_met(dense, {"d", "r", "D"})] == []


def test_objects_of_a_label_mask_are_its_connected_areas() -> None:
    mask = LabelMask(np.array([[1, 1, 0, 2], [0, 0, 0, 2]]), {0: "", 1: "a", 2: "b"}, 8, 4)
    kept = targets(mask, points={**POINTS, "labels": {"a": "b", "b": "b"}}, boxes={"classes": ["b"]})
    assert kept.objects((0, 0, 8, 4), (8, 4)) == {
        "points": [[2, 1, 1], [7, 2, 1]],
        "boxes": [[6, 0, 8, 4, 0]],
    }


def test_several_kinds_of_targets_come_from_the_same_annotations() -> None:
    kept = targets(
        areas(("a", shapely.box(0, 0, 2, 2)), ("b", shapely.Point(1, 1))),
        seg={"classes": ["bg", "cell"], "labels": {"a": "cell"}, "unannotated": "bg"},
        points={"classes": ["b"], "radius_px": 1},
        boxes={"classes": ["a"]},
    )
    assert kept.mask((0, 0, 3, 2), (3, 2)).tolist() == [[1, 1, 0], [1, 1, 0]]
    assert kept.objects((0, 0, 3, 2), (3, 2)) == {"points": [[1, 1, 0]], "boxes": [[0, 0, 2, 2, 0]]}


CSV = """shape = "points"
kind = "detection"
{mpp}
rule = {{type = "presence", size = 10, positive = ["cell"]{rule}}}
split = {{strict = {{}}}}
[dense.points]
classes = ["cell"]
{radius}
exhaustive = true
"""


def draw_points(source: Path) -> None:
    source.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.full((10, 20, 3), 90 + number, np.uint8)).save(source / f"{number}.png")
        (source / f"{number}.csv").write_text("x,y,label\n2.5,3,cell\n12,4.25,cell\n13,4,other\n")


def test_points_are_in_the_json_of_every_sample_and_counted_in_the_index(make: Make, tmp_path: Path) -> None:
    draw_points(tmp_path / "source")
    rows = make(CSV.format(mpp="mpp = 0.5", rule="", radius="radius_um = 7.5"))
    folder = tmp_path / "out" / "Mine"
    samples = stored(folder)
    for row in rows:
        assert [*samples[row["key"]]] == ["png", "cls", "json"]
        fields = json.loads(samples[row["key"]]["json"])
        assert fields["points"] == ([[2.5, 3, 0]] if row["x"] == 0 else [[2, 4.25, 0]])
        assert (row["objects"], [*fields]) == (1, sorted(fields))
        assert "seg_offset" not in row
    card = json.loads((folder / "task.json").read_bytes())
    assert card["dense"] == {
        "points": {"classes": ["cell"], "radius_um": 7.5, "radius_px": 15.0, "exhaustive": True, "metric": "f1"}
    }
    assert "annotations: 2 x labelled 'other', which [dense] does not name" in card["notes"]


def test_a_radius_is_that_of_the_stored_pixels(make: Make, tmp_path: Path) -> None:
    draw_points(tmp_path / "source")
    make(CSV.format(mpp="mpp = 0.5", rule=", stored = 5", radius="radius_um = 7.5"))
    card = cards.load(tmp_path / "out" / "Mine")
    assert card.dense is not None
    assert card.dense.points is not None
    assert card.dense.points.radius_px == 7.5


def test_a_radius_in_micrometres_needs_a_resolution(make: Make, tmp_path: Path) -> None:
    draw_points(tmp_path / "source")
    told = make(CSV.format(mpp="", rule="", radius="radius_um = 7.5"), fails=True)
    assert "the resolution is not known" in told
    assert "--mpp" in told
    make(CSV.format(mpp="", rule="", radius="radius_px = 6"))
    card = json.loads((tmp_path / "out" / "Mine" / "task.json").read_bytes())
    assert (card["dense"]["points"]["radius_um"], card["dense"]["points"]["radius_px"]) == (None, 6)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[dense]\n", "[dense] needs at least one of the tables"),
        ('[dense.seg]\nclasses = ["a"]\n', "dense.seg.classes"),
        ('[dense.seg]\nclasses = ["a", "a"]\n', "a class is named twice"),
        ('[dense.seg]\nclasses = ["a", "c"]\nlabels = {x = "b"}\n', "`labels` names 'b', which is none of `classes`"),
        ('[dense.seg]\nclasses = ["a", "c"]\nunannotated = "b"\n', "`unannotated` is 'b', which is none of `classes`"),
        ('[dense.seg]\nclasses = ["a", "c"]\nignore = ["a"]\n', "the label 'a' has two meanings"),
        ('[dense.seg]\nclasses = ["a", "b"]\nlabels = {x = "a"}\n', "no label becomes the class 'b'"),
        ('[dense.points]\nclasses = ["a"]\n', "give the radius of points as `radius_um` or as `radius_px`"),
        ('[dense.points]\nclasses = ["a"]\nradius_um = 0\n', "dense.points.radius_um"),
        ('[dense.boxes]\nclasses = ["a"]\nradius_um = 1\n', "radius_um"),
    ],
)
def test_what_a_table_cannot_mean_is_refused(table: str, told: str, make: Make, tmp_path: Path) -> None:
    draw_masks(tmp_path / "source")
    assert told in make(MASKS.partition("[dense")[0] + table, fails=True)


def test_a_point_has_no_box(make: Make, tmp_path: Path) -> None:
    draw_points(tmp_path / "source")
    text = CSV.format(mpp="", rule="", radius="").replace("dense.points", "dense.boxes")
    assert "a point has no bounding box" in make(text, fails=True)


def test_a_layout_without_annotations_has_no_dense_targets(make: Make, tmp_path: Path) -> None:
    draw_masks(tmp_path / "source" / "yes")
    told = make('shape = "folders"\n[dense.boxes]\nclasses = ["a"]\n', fails=True)
    assert "[dense] needs annotations, which the shape 'folders' does not read" in told


# --- whatever the workers and the interruptions


@pytest.mark.usefixtures("slow_png")
def test_workers_and_interruptions_do_not_change_the_bytes(
    make: Make, tmp_path: Path, dpconvert: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_masks(tmp_path / "source")
    make(MASKS, "--samples-per-shard", 1)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out" / "Mine").iterdir() if path.is_file()}
    given = tmp_path / "my.toml", "--source", tmp_path / "source", "--samples-per-shard", 1, "-q"
    assert dpconvert(*given, "--out", tmp_path / "two", "--workers", 2).code == 0
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "two" / "Mine").iterdir() if path.is_file()}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dpconvert.conversion._finish", killed)
        assert dpconvert(*given, "--out", tmp_path / "three", "--workers", 1).code != 0
    folder = tmp_path / "three" / "Mine"
    assert not (folder / "task.json").exists()
    (folder / "train-000002.tar").unlink()
    kept = (folder / "train-000001.tar").stat().st_ino
    assert dpconvert(*given, "--out", tmp_path / "three", "--workers", 1).code == 0
    assert (folder / "train-000001.tar").stat().st_ino == kept
    assert whole == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_mask_that_was_mended_makes_its_shards_again(
    make: Make, tmp_path: Path, dpconvert: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted conversion goes on after the size of a mask file has changed."""
    draw_masks(tmp_path / "source")
    make(MASKS, "--samples-per-shard", 1)
    given = tmp_path / "my.toml", "--source", tmp_path / "source", "--samples-per-shard", 1, "-q"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dpconvert.conversion._finish", killed)
        dpconvert(*given, "--out", tmp_path / "again", "--workers", 1)
    remarks = np.zeros((4, 8), np.uint8)
    remarks[:, 5:] = 255
    Image.fromarray(remarks).save(tmp_path / "source" / "masks" / "1.png")
    assert dpconvert(*given, "--out", tmp_path / "again", "--workers", 1).code == 0
    assert dpconvert(*given, "--out", tmp_path / "fresh", "--workers", 1).code == 0
    again, fresh = tmp_path / "again" / "Mine", tmp_path / "fresh" / "Mine"
    assert cards.load(again).digest == cards.load(fresh).digest
    assert cards.load(again).digest != cards.load(tmp_path / "out" / "Mine").digest


# --- the tools that read finished tasks


def both(source: Path) -> str:
    """The images and masks of `draw_masks`, with points and boxes of their objects."""
    draw_masks(source)
    objects = '[dense.points]\nclasses = ["yes"]\nradius_px = 2\n[dense.boxes]\nclasses = ["yes"]\n'
    return MASKS + objects


def test_unpack_writes_masks_and_a_table_of_objects(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    make(both(tmp_path / "source"))
    folder, out = tmp_path / "out" / "Mine", tmp_path / "unpacked"
    for _ in range(2):  # what is there is kept
        assert dpconvert("unpack", folder, "--out", out, "-q").code == 0
    samples = stored(folder)
    labels = (out / "labels.csv").read_text().splitlines()[1:]
    assert len(labels) == len(samples)
    for name in (line.partition(",")[0] for line in labels):
        assert (out / name).read_bytes() == samples[Path(name).stem]["png"]
        assert (out / "masks" / name).read_bytes() == samples[Path(name).stem]["seg.png"]
    head, *lines = (out / "objects.csv").read_text().splitlines()
    assert head == "file,kind,class,x,y,x2,y2"
    told = [json.loads(parts["json"]) for parts in samples.values()]
    assert len(lines) == sum(len(fields["points"]) + len(fields["boxes"]) for fields in told) > 0
    key, fields = next((key, f) for key, f in zip(samples, told, strict=True) if f["points"])
    (x, y, _), (left, top, right, bottom, _) = fields["points"][0], fields["boxes"][0]
    assert any(line.endswith(f"{key}.png,point,yes,{x},{y},,") for line in lines)
    assert any(line.endswith(f"{key}.png,box,yes,{left},{top},{right},{bottom}") for line in lines)


def test_unpack_refuses_a_mask_that_was_changed(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    (row, *_) = make(both(tmp_path / "source"))
    path = tmp_path / "out" / "Mine" / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["seg_offset"] + 30] ^= 1
    path.write_bytes(data)
    answer = dpconvert("unpack", tmp_path / "out" / "Mine", "--out", tmp_path / "unpacked", "-q")
    assert answer.code == 1
    assert f"{row['key']} has changed since it was written" in answer.err


def test_the_page_of_tasks_shows_targets_over_images(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    make(both(tmp_path / "source"))
    assert dpconvert("preview", tmp_path / "out", "--out", tmp_path / "page.html", "-q").code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('<img alt="yes, with targets: ') == page.count('<img alt="yes: ') > 0
    assert "<dt>dense targets</dt>" in page


def test_an_overlay_veils_what_is_annotated_and_nothing_else() -> None:
    grey = Image.new("RGB", (4, 2), (100, 100, 100))
    mask = np.array([[255, 255, 0, 1]] * 2, np.uint8)
    drawn = np.asarray(overlaid(grey, (4, 2), mask, {}))
    assert (drawn[:, :2] == 100).all()
    assert drawn[0, 2].tolist() == [(100 * 165 + c * 90) // 255 for c in (0x00, 0x72, 0xB2)]
    assert drawn[0, 3].tolist() == [(100 * 165 + c * 90) // 255 for c in (0xD5, 0x5E, 0x00)]
    framed = np.asarray(overlaid(grey, (8, 4), None, {"boxes": [[0, 0, 2, 2, 1]]}))  # half the stored size
    assert framed[1, 1].tolist() == [0xD5, 0x5E, 0x00]
    assert framed[1, 3].tolist() == [100, 100, 100]


def test_the_sheets_of_a_source_show_its_targets(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    (tmp_path / "my.toml").write_text(HEAD + both(tmp_path / "source"))
    answer = dpconvert(
        "preview", tmp_path / "my.toml", "--source", tmp_path / "source", "--out", tmp_path / "seen", "-q"
    )
    assert answer.code == 0
    names = {path.name for path in (tmp_path / "seen").iterdir()}
    assert {"0_class_yes.png", "0_class_yes_targets.png"} <= names
    plain, drawn = (np.asarray(Image.open(tmp_path / "seen" / f"0_class_yes{end}.png")) for end in ("", "_targets"))
    assert (plain[36:40, 6:10] != drawn[36:40, 6:10]).any()  # where the first sample of 4 px is pasted


def test_against_tells_masks_that_differ(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    text = both(tmp_path / "source")
    make(text)
    (tmp_path / "out").rename(tmp_path / "first")
    all_known = 'labels = {yes = "yes", no = "no", void = "no"}\n[dense.points]'
    make(text.replace('ignore = ["void"]\n[dense.points]', all_known))
    answer = dpconvert("verify", tmp_path / "out", "--against", tmp_path / "first", "--workers", 1, "-q")
    assert answer.code == 1
    assert "images in both have equal bytes" in answer.err
    assert "masks with different bytes" in answer.err
    plain = text.partition("[dense")[0]
    make(plain)
    answer = dpconvert("verify", tmp_path / "out", "--against", tmp_path / "first", "--workers", 1, "-q")
    assert "none here, masks (no, yes) and points (yes) and boxes (yes) there" in answer.err


def test_audit_reads_tasks_with_targets(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    make(both(tmp_path / "source"))
    answer = dpconvert("audit", tmp_path / "out", "--page", tmp_path / "audit.html", "--json", "-q")
    assert json.loads(answer.out)


def test_check_looks_for_unknown_labels(make: Make, tmp_path: Path, dpconvert: Cli) -> None:
    draw_points(tmp_path / "source")
    (tmp_path / "my.toml").write_text(HEAD + CSV.format(mpp="", rule="", radius="radius_um = 3"))
    answer = dpconvert("check", tmp_path / "my.toml", "--source", tmp_path / "source", "-q")
    assert answer.code == 1
    assert "the resolution is not known" in answer.out + answer.err


def test_all_sources_keep_what_they_have(tmp_path: Path, dpconvert: Cli, converted: Callable[[str], Converted]) -> None:
    """`all --dense` converts sources without dense targets, too."""
    (tmp_path / "sources").mkdir()
    for name in ("janowczyk7", "pannuke"):
        (tmp_path / "sources" / name).symlink_to(converted(name).source)
    given = "--root", tmp_path / "sources", "--out", tmp_path / "out", "--workers", 1, "-q", "--dense"
    assert dpconvert("all", *given).code == 0
    assert cards.load(tmp_path / "out" / "Janowczyk7").dense is None
    card = cards.load(tmp_path / "out" / "PanNukeNeoplastic")
    assert card.dense is not None
    readme = (tmp_path / "out" / card.task / "README.md").read_text()
    assert "task_categories: [image-classification, image-segmentation]\n" in readme
    answer = dpconvert("show", "pannuke")
    assert "masks (background, neoplastic, inflammatory, connective, dead, epithelial) and points" in answer.out
    assert "with --dense" in answer.out


def test_a_radius_is_a_finite_number() -> None:
    with pytest.raises(ValueError, match="radius_px"):
        dense(points={"classes": ["a"], "radius_px": float("inf")})

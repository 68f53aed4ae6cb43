"""Masks as people save them: colours, transparency, pages, a file for each object."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from dpconvert.annotations import masks, object_masks
from dpconvert.annotations.object_masks import read_coloured
from dpconvert.errors import ReadError
from tests.dpconvert.test_shapes import Make, draw_image, make

__all__ = ["make"]
BLACK, RED, GREEN, WHITE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)
NUMBERS: dict[int | str, str] = {0: "other", 255: "tumour"}
COLOURS: dict[int | str, str] = {"#000000": "other", "#00ff00": "tumour", "#ff0000": "stroma"}
SIZE = 4, 2


def saved(values: Any, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    drawn = Image.fromarray(np.asarray(values, np.uint8))
    (drawn if mode is None else drawn.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def rows(*colours: tuple[int, ...]) -> Any:
    """Two equal rows of pixels."""
    return np.array([colours, colours], np.uint8)


def read(data: bytes, labels: dict[int | str, str], size: tuple[int, int] = SIZE, **options: Any) -> list[str | None]:
    mask = masks.read(data, "m.png", labels, size, **options)
    return mask.at([((x + 0.5), 0.5) for x in range(size[0])])


DRAWN = rows(BLACK, GREEN, RED, RED)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_colours_are_classes_by_their_names(kind: str) -> None:
    assert read(saved(DRAWN, kind), COLOURS) == ["other", "tumour", "stroma", "stroma"]
    palette = saved(DRAWN, "PNG", "P")
    assert read(palette, COLOURS) == ["other", "tumour", "stroma", "stroma"]
    grey: dict[int | str, str] = {"#000000": "other", "#7f7f7f": "tumour"}
    assert read(saved([[0, 127, 127, 0]] * 2), grey) == ["other", "tumour", "tumour", "other"]
    bilevel: dict[int | str, str] = {"#000000": "other", "#ffffff": "tumour"}
    assert read(saved([[0, 255, 255, 0]] * 2, mode="1"), bilevel) == ["other", "tumour", "tumour", "other"]


def test_a_colour_that_is_not_named_is_refused() -> None:
    with pytest.raises(ReadError, match="mask colour #00ff00 has no label; expected one of #000000, #ff0000"):
        read(saved(DRAWN), {"#000000": "other", "#ff0000": "stroma"})
    with pytest.raises(ReadError, match="both numbers and colours"):
        read(saved(DRAWN), {0: "other", "#ff0000": "stroma"})


def test_a_mask_whose_channels_differ_is_no_mask_of_numbers() -> None:
    told = r"a mask in colours, whose channels differ; .*found #000000, #00ff00, #ff0000; name its colours"
    for data in (saved(DRAWN), saved(DRAWN, "TIFF"), saved(rows(WHITE, RED, WHITE, WHITE))):
        with pytest.raises(ReadError, match="channels differ"):
            read(data, NUMBERS)
    with pytest.raises(ReadError, match=told):
        read(saved(DRAWN), NUMBERS)
    with pytest.raises(ReadError, match="channels differ"):
        read(saved(DRAWN), {0: "other", 1: "tumour"}, threshold=127)
    assert read(saved(rows(BLACK, WHITE, WHITE, BLACK)), NUMBERS) == ["other", "tumour", "tumour", "other"]


def test_fringes_of_a_grey_jpeg_saved_in_colours_go_by_the_threshold() -> None:
    values = np.zeros((32, 32, 3), np.uint8)
    values[:, 16:] = 255
    noisy = values.astype(int) + np.random.default_rng(0).integers(-3, 4, values.shape)
    mask = masks.read(saved(noisy.clip(0, 255)), "m", {0: "other", 1: "tumour"}, (32, 32), threshold=127)
    assert mask.values.sum() == 32 * 16


# transparency


def test_transparency_that_tells_nothing_more_is_left_out() -> None:
    opaque = np.dstack([DRAWN, np.full((2, 4), 255)])
    assert read(saved(opaque), COLOURS) == ["other", "tumour", "stroma", "stroma"]
    clear_background = np.dstack([DRAWN, (DRAWN.max(axis=2) > 0) * 255])
    assert read(saved(clear_background), COLOURS) == ["other", "tumour", "stroma", "stroma"]
    grey = rows((0, 0), (255, 255), (255, 255), (0, 0))
    assert read(saved(grey), NUMBERS) == ["other", "tumour", "tumour", "other"]


def test_a_mask_in_alpha_alone_is_refused() -> None:
    alpha = rows((*BLACK, 0), (*BLACK, 255), (*BLACK, 255), (*BLACK, 0))
    halves = rows((0, 0), (0, 255), (255, 255), (255, 255))
    for data in (saved(alpha), saved(alpha, "TIFF"), saved(halves)):
        with pytest.raises(ReadError, match="only by their transparency; save it without"):
            read(data, NUMBERS)


def test_colours_of_sixteen_bits_are_refused() -> None:
    """Pillow gives their upper halves only: 300 would be 1."""
    wide = imagecodecs.png_encode(np.full((2, 4, 3), 300, np.uint16))
    with pytest.raises(ReadError, match="a mask in colours of more than 8 bits"):
        read(wide, {1: "a", 300: "b"})
    grey = imagecodecs.png_encode(np.full((2, 4), 300, np.uint16))
    assert read(grey, {300: "b"}) == ["b"] * 4
    with pytest.raises(ReadError, match=r'more than 8 bits; found uint16; .* say `objects = "values"`'):
        read_coloured(grey, "m", "nucleus", (4, 2))


# pages

PLANE = np.array([[0, 255, 0, 0], [0, 255, 0, 0]], np.uint8)


def pages(*planes: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        for plane in planes:
            tiff.write(plane, photometric="minisblack", metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "planes",
    [(PLANE, PLANE), (PLANE, PLANE, PLANE), (PLANE, np.zeros((4, 2), np.uint8)), (PLANE, np.zeros((2, 3), np.uint8))],
)
def test_masks_of_several_pages_are_refused(planes: Any) -> None:
    with pytest.raises(ReadError, match="a mask of several pages; expected one"):
        read(pages(*planes), NUMBERS)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_no_masks(kind: str) -> None:
    frames = [Image.fromarray(plane) for plane in (PLANE, 255 - PLANE)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ReadError, match=r"several pages.*an animation"):
        read(buffer.getvalue(), dict.fromkeys(range(256), "a"))


def test_smaller_copies_of_a_mask_are_no_pages_of_it_wherever_they_stand() -> None:
    big = np.kron(PLANE, np.ones((16, 16), np.uint8))
    for planes in ((big, big[::2, ::2], big[::4, ::4]), (big[::4, ::4], big)):
        mask = masks.read(pages(*planes), "m", NUMBERS, (64, 32))
        assert mask.values.shape == (32, 64)
        assert (mask.values == big).all()


# a file for each object

OBJECTS = 'shape = "masks"\n[layout]\nobjects = true\n'
CROP = '[rule]\ntype = "crop"\n'


def spot(path: Path, left: int, top: int, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((20, 20), np.uint8)
    values[top : top + 5, left : left + 4] = value
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("threshold", [None, 127])
def test_an_object_in_all_four_corners_is_reported(threshold: int | None) -> None:
    """Of a black object on white, all but the object counts, and its centre is that of the image."""
    whole = np.full((20, 20), 255, np.uint8)
    three_corners, swapped = whole.copy(), whole.copy()
    three_corners[:2, :2] = swapped[4:9, 4:9] = 0
    for values, told in ((whole, 0), (255 - whole, 0), (three_corners, 0), (swapped, 1)):
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "PNG")
        found = object_masks.read_single(stream.getvalue(), "m.png", "yes", (20, 20), threshold=threshold)
        assert found.remarks[object_masks.ALL_CORNERS] == told


def test_a_mask_file_may_be_one_object_of_several(make: Make, tmp_path: Path) -> None:
    """As in the Data Science Bowl of 2018: one folder per image, with a mask for each nucleus."""
    root = tmp_path / "source"
    for name in "abc":
        draw_image(root / name / "images" / f"{name}.png")
        spot(root / name / "masks" / "1.png", 0, 0)
        spot(root / name / "masks" / "2.png", 3, 4, value=7)  # they overlap
    files = (
        "[files.images]\npattern = '(?P<name>[^/]+)/images/[^/]+\\.png$'\n"
        "[files.masks]\npattern = '(?P<name>[^/]+)/masks/[^/]+\\.png$'\n"
    )
    found = make(OBJECTS + 'label = "yes"\n' + files + CROP)
    assert Counter((r["x"], r["y"], r["width"], r["height"]) for r in found) == {(0, 0, 4, 5): 3, (3, 4, 4, 5): 3}
    assert "no class for the objects of masks" in str(make(OBJECTS + files + CROP, fails=True))
    told = make('shape = "masks"\n[layout]\nvalues = {0 = "no", 255 = "yes"}\n' + files + CROP, fails=True)
    assert "a/masks/2.png: two masks of one image; if each mask file is one object, say `objects = true`" in str(told)
    assert "`values` is needed" in str(make('shape = "masks"\n[layout]\n' + files + CROP, fails=True))


def test_a_mask_file_a_class(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "source"
    for name in "abc":
        draw_image(root / f"{name}.png")
        spot(root / f"{name}_no.png", 0, 0)
        spot(root / f"{name}_yes.png", 10, 10)
    files = (
        "[files.images]\npattern = '^(?P<name>[^/_]+)\\.png$'\n"
        "[files.masks]\npattern = '^(?P<name>[^/_]+)_(?P<class>no|yes)\\.png$'\n"
    )
    found = make(OBJECTS + files + CROP)
    assert Counter((r["label"], r["x"], r["y"]) for r in found) == {(0, 0, 0): 3, (1, 10, 10): 3}


def test_colours_of_a_manifest(make: Make, tmp_path: Path) -> None:
    for name in "abc":
        draw_image(tmp_path / "source" / "images" / f"{name}.png")
        values = np.zeros((20, 20, 3), np.uint8)
        values[:10, :10] = GREEN
        (tmp_path / "source" / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "source" / "masks" / f"{name}.png")
    rule = '[rule]\ntype = "area"\nsize = 10\nshare = 0.5\npositive = ["tumour"]\n'
    found = make('shape = "masks"\n[layout.values]\n"#000000" = "glass"\n"#00FF00" = "tumour"\n' + rule)
    assert {(r["x"], r["y"]) for r in found if r["label"]} == {(0, 0)}
    told = make('shape = "masks"\n[layout.values]\n0 = "glass"\n"green" = "tumour"\n' + rule, fails=True)
    assert "layout.values" in str(told)


def white_is_zero(stored: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(stored), photometric="miniswhite", **options)
    return buffer.getvalue()


BINARY: dict[int | str, str] = {0: "other", 1: "tumour"}


def test_a_mask_whose_zero_is_white_goes_by_the_only_reading_that_has_labels() -> None:
    numbered: dict[int | str, str] = {0: "other", 1: "tumour", 2: "stroma"}
    mask = masks.read(white_is_zero(np.uint8([[0, 1, 2, 2]] * 2)), "m.tif", numbered, SIZE)
    assert mask.at([(1.5, 0.5), (0.5, 0.5)]) == ["tumour", "other"]
    assert mask.remarks == {"mask of a TIFF whose zero is white, its values read as stored": 1}
    shown = masks.read(white_is_zero(np.uint16([[65535, 65534, 65533, 65535]] * 2)), "m.tif", numbered, SIZE)
    assert shown.at([(x + 0.5, 0.5) for x in range(4)]) == ["other", "tumour", "stroma", "other"]
    assert shown.remarks == {"mask of a TIFF whose zero is white, its values read as shown": 1}


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (white_is_zero(np.uint8([[0, 255, 255, 0]] * 2)), NUMBERS),
        (white_is_zero(np.uint8([[0, 255, 255, 0]] * 2), compression="lzw"), NUMBERS),
        (white_is_zero(np.array([[False, True, True, False]] * 2)), BINARY),
        (white_is_zero(np.uint16([[0, 65535, 65535, 0]] * 2)), {0: "other", 65535: "tumour"}),
    ],
)
def test_a_mask_whose_zero_is_white_is_refused_where_both_readings_have_labels(
    data: bytes, labels: dict[int | str, str]
) -> None:
    with pytest.raises(ReadError, match=r"zero is white .* opposite ways; .*`white_is_zero = .shown.`"):
        read(data, labels)
    assert read(data, labels, white_is_zero="stored") == ["other", "tumour", "tumour", "other"]
    assert read(data, labels, white_is_zero="shown") == ["tumour", "other", "other", "tumour"]


def test_colours_of_a_mask_whose_zero_is_white_are_those_that_are_shown() -> None:
    data = white_is_zero(np.uint8([[0, 255, 255, 0]] * 2))
    assert read(data, {"#ffffff": "other", "#000000": "tumour"}) == ["other", "tumour", "tumour", "other"]


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((512, 512), False),
        ((511, 512), True),
        ((512, 511), True),
        ((256, 256), False),
        ((340, 341), True),
        ((128, 128), False),
    ],
)
def test_a_mask_whose_size_is_no_fraction_of_its_image_s_is_reported(size: tuple[int, int], told: bool) -> None:
    mask = masks.read(saved(np.zeros(size[::-1], np.uint8)), "m.png", {0: "other"}, (512, 512))
    assert bool(mask.remarks) == told


def test_a_mask_whose_two_readings_are_one_needs_no_choice() -> None:
    assert read(white_is_zero(np.int8([[0, 1, 1, 0]] * 2)), BINARY) == ["other", "tumour", "tumour", "other"]


def indexed(path: Path, values: Any, colours: list[tuple[int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    image.putpalette([number for colour in colours for number in colour])
    image.save(path)


def test_one_colour_that_is_two_values_in_two_masks_is_refused(make: Make, tmp_path: Path) -> None:
    """The second mask looks like the first, and has its palette the other way round."""
    values = np.zeros((20, 20), np.uint8)
    values[:10, :10] = 1
    for name in "abc":
        draw_image(tmp_path / "source" / "images" / f"{name}.png")
        swapped = name == "b"
        path = tmp_path / "source" / "masks" / f"{name}.png"
        indexed(path, 1 - values if swapped else values, [GREEN, BLACK] if swapped else [BLACK, GREEN])
    rule = '[rule]\ntype = "area"\nsize = 10\nshare = 0.5\npositive = ["tumour"]\n'
    told = str(make('shape = "masks"\n[layout.values]\n0 = "glass"\n1 = "tumour"\n' + rule, fails=True))
    assert "masks/b.png: masks whose palettes contradict each other: #00ff00 is value 0 here, and value 1 in" in told
    found = make('shape = "masks"\n[layout.values]\n"#000000" = "glass"\n"#00ff00" = "tumour"\n' + rule)
    assert {(r["source"], r["x"], r["y"]) for r in found if r["label"]} == {
        (f"images/{name}.png", 0, 0) for name in "abc"
    }
    indexed(tmp_path / "source" / "masks" / "b.png", values, [RED, WHITE])  # other colours for the same values
    found = make('shape = "masks"\n[layout.values]\n0 = "glass"\n1 = "tumour"\n' + rule)
    assert {(r["source"], r["x"], r["y"]) for r in found if r["label"]} == {
        (f"images/{name}.png", 0, 0) for name in "abc"
    }


def test_the_values_of_a_mask_may_number_its_objects(make: Make, tmp_path: Path) -> None:
    root, files = tmp_path / "source", "[files.masks]\npattern = '(?P<class>yes|no)/(?P<name>[^/]+)\\.tif$'\n"
    draw_image(root / "images" / "1.png")
    values = np.zeros((20, 20), np.uint16)
    values[:5, :4], values[:5, 4:9], values[10:12, 3:5] = 7, 300, 2
    for label in ("yes", "no"):
        (root / label).mkdir()
        tifffile.imwrite(root / label / "1.tif", values if label == "no" else values.T)
    found = make(OBJECTS.replace("true", '"values"') + files + CROP)
    boxes = {(0, 0, 4, 5), (4, 0, 5, 5), (3, 10, 2, 2)}
    assert {(r["x"], r["y"], r["width"], r["height"]) for r in found if r["label"] == 0} == boxes
    assert len(found) == 6


def test_a_number_for_separate_areas_is_reported() -> None:
    """A mask of two values, whose objects would be one."""
    values = np.zeros((9, 9), np.uint8)
    values[1, 1] = values[5, 5] = 255
    mask = object_masks.read_numbered(saved(values), "m", "cell", (9, 9))
    assert dict(mask.remarks) == {object_masks.ONE_NUMBER: 1}
    assert len(mask.objects().items) == 1
    with pytest.raises(ReadError, match=r"m.jpg: a JPEG file, which does not keep the numbers of objects"):
        object_masks.read_numbered(saved(values, "JPEG"), "m.jpg", "cell", (9, 9))
    with pytest.raises(ReadError, match=r"numbers no object.*-1"):
        object_masks.read_numbered(pages(values.astype(np.int16) - 1), "m", "cell", (9, 9))


def coloured(tmp_path: Path) -> Any:
    """An image, and a mask of four objects that touch, in colours whose channels are all above 0."""
    draw_image(tmp_path / "source" / "images" / "1.png")
    values = np.zeros((20, 20, 3), np.uint8)
    values[:5, :4], values[:5, 4:9], values[5:9, :9], values[10:12, 3:5] = (9, 8, 7), (9, 8, 6), (1, 200, 3), RED
    (tmp_path / "source" / "masks").mkdir()
    Image.fromarray(values).save(tmp_path / "source" / "masks" / "1.png")
    return values


def test_each_colour_of_a_mask_may_be_an_object(make: Make, tmp_path: Path) -> None:
    coloured(tmp_path)
    found = make(OBJECTS.replace("true", '"colours"\nlabel = "yes"') + CROP)
    boxes = {(0, 0, 4, 5), (4, 0, 5, 5), (0, 5, 9, 4), (3, 10, 2, 2)}
    assert {(r["x"], r["y"], r["width"], r["height"]) for r in found} == boxes


@pytest.mark.parametrize("objects", ["true", '"values"'])
def test_objects_in_colours_are_never_taken_for_one(objects: str, make: Make, tmp_path: Path) -> None:
    coloured(tmp_path)
    told = str(make(OBJECTS.replace("true", objects + '\nlabel = "yes"') + CROP, fails=True))
    assert 'say `objects = "colours"` in [layout]' in told


def test_a_mask_of_one_object_has_one_value(make: Make, tmp_path: Path) -> None:
    draw_image(tmp_path / "source" / "images" / "1.png")
    values = np.zeros((20, 20), np.uint8)
    values[:5, :4], values[:5, 4:9] = 1, 2
    (tmp_path / "source" / "masks").mkdir()
    Image.fromarray(values).save(tmp_path / "source" / "masks" / "1.png")
    manifest = OBJECTS + 'label = "yes"\n'
    told = str(make(manifest + CROP, fails=True))
    assert "several values above 0 in a mask of one object; found 1, 2; if each is an object" in told
    assert [(r["width"], r["height"]) for r in make(manifest + "threshold = 0\n" + CROP)] == [(9, 5)]


def test_a_red_object_on_black_is_one_object() -> None:
    mask = object_masks.read_single(saved(rows(BLACK, RED, RED, BLACK)), "m", "cell", SIZE)
    assert mask.at([(x + 0.5, 0.5) for x in range(4)]) == [None, "cell", "cell", None]


def test_colours_that_do_not_tell_objects_apart_are_refused() -> None:
    size = 20, 20
    values = np.zeros((20, 20, 3), np.uint8)
    for number in range(9):
        values[6 * (number // 3) :, 6 * (number % 3) :][:3, :3] = (RED, GREEN)[number % 2]
    with pytest.raises(ReadError, match="a colour is several objects; found 9 separate areas in 2 colours"):
        object_masks.read_coloured(saved(values), "m", "cell", size)
    values[:3, :3] = GREEN
    values[:3, 12:15] = WHITE
    with pytest.raises(ReadError, match="a colour is several objects"):
        object_masks.read_coloured(saved(values), "m", "cell", size)
    with pytest.raises(ReadError, match="without a black background; found #ffffff most often"):
        object_masks.read_coloured(saved(np.where(values.any(axis=2, keepdims=True), values, 255)), "m", "cell", size)
    values[:] = 0
    values[5:15, 2:9], values[5:15, 9:17] = (250, 120, 10), (10, 120, 250)
    smooth = Image.fromarray(values).resize((36, 36), Image.Resampling.BICUBIC)
    with pytest.raises(ReadError, match="colours blend"):
        object_masks.read_coloured(saved(np.asarray(smooth)), "m", "cell", size)
    with pytest.raises(ReadError, match="a JPEG file"):
        object_masks.read_coloured(saved(values, "JPEG"), "m", "cell", size)


def test_a_colour_that_covers_separate_areas_is_reported() -> None:
    values = np.zeros((9, 9, 3), np.uint8)
    values[1:3, 1:3] = values[5:7, 5:7] = RED
    values[1:3, 5:7] = GREEN
    mask = object_masks.read_coloured(saved(values), "m", "cell", (9, 9))
    assert dict(mask.remarks) == {object_masks.ONE_COLOUR: 1}
    assert len(mask.objects().items) == 2

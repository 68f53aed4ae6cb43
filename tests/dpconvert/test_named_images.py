"""Files that name images: what they say of images that are not here is counted, all of it is an error."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from dpconvert.annotations.listed import Names, matching
from dpconvert.card import load
from dpconvert.manifest.catalog import find
from dpconvert.plan import check
from dpconvert.plan.options import Options
from dpconvert.readers import reader, with_defaults
from dpconvert.readers.fakes import draw_fake
from dpconvert.shards.index import read_index
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Answer

Call = Callable[..., Answer]
SIDE = 20
PRESENCE = '[rule]\ntype = "presence"\nsize = 10\npositive = ["m"]\n'
MANIFEST = """
task = "Named"
shape = "{shape}"
classes = ["no", "yes"]
[files.{images}]
pattern = '{pattern}'
{more}
[split.strict]
share = [1, 1, 1]
"""


def coco(*images: tuple[str, int]) -> bytes:
    """A COCO file of images, each with so many boxes around (5, 5), (15, 5), ..."""
    listed = [{"id": n, "file_name": name, "width": SIDE, "height": SIDE} for n, (name, _) in enumerate(images)]
    boxes = [
        {"id": 10 * n + k, "image_id": n, "category_id": 1, "bbox": [3 + 10 * k, 3, 4, 4]}
        for n, (_, count) in enumerate(images)
        for k in range(count)
    ]
    return json.dumps({"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "m"}]}).encode()


def via(*images: tuple[str, int]) -> bytes:
    """The same boxes as VIA 2 writes them."""
    files = {
        name: {
            "filename": name,
            "size": 1,
            "file_attributes": {},
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 3 + 10 * k, "y": 3, "width": 4, "height": 4},
                    "region_attributes": {"kind": "m"},
                }
                for k in range(count)
            ],
        }
        for name, count in images
    }
    return json.dumps(files).encode()


def cvat(*images: tuple[str, int]) -> bytes:
    """The same boxes as CVAT 1.1 writes them."""
    text = "".join(
        f'<image id="{n}" name="{name}" width="{SIDE}" height="{SIDE}">'
        + "".join(
            f'<box label="m" xtl="{3 + 10 * k}" ytl="3" xbr="{7 + 10 * k}" ybr="7" occluded="0"/>' for k in range(count)
        )
        + "</image>"
        for n, (name, count) in enumerate(images)
    )
    return f"<annotations><version>1.1</version>{text}</annotations>".encode()


WRITERS: dict[str, Callable[..., bytes]] = {"all.json": coco, "boxes.json": via, "all.xml": cvat}


class World:
    """A source of small images, and its manifest."""

    def __init__(self, folder: Path, dpconvert: Call) -> None:
        self.folder, self.call, self.root = folder, dpconvert, folder / "source"
        self.shape, self.layout, self.pattern = "points", "", "(?P<name>[^/]+)\\.png$"

    def image(self, *files: str) -> None:
        for name in files:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8)).save(path)

    def write(self, name: str, data: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(data)

    def run(self, command: str = "") -> Answer:
        kinds = {"points": "points", "slides": "annotations"}
        more = "" if self.shape == "slides" else f"[files.{kinds[self.shape]}]\npattern = '\\.(?:json|xml)$'\n"
        images = "slides" if self.shape == "slides" else "images"
        text = (
            MANIFEST.format(shape=self.shape, images=images, more=more, pattern=self.pattern) + self.layout + PRESENCE
        )
        path = self.folder / "named.toml"
        path.write_text(text)
        options = ["--source", self.root]
        if not command:
            return self.call(path, *options, "--out", self.folder / "out", "--workers", "1", "--overwrite")
        return self.call(command, path, *options)

    @property
    def notes(self) -> list[str]:
        return load(self.folder / "out" / "Named").notes

    def counts(self) -> list[int]:
        card = load(self.folder / "out" / "Named")
        return np.sum([split.classes for split in card.splits.values()], axis=0).tolist()


@pytest.fixture
def world(tmp_path: Path, dpconvert: Call) -> World:
    return World(tmp_path, dpconvert)


@pytest.mark.parametrize("shape", ["points", "slides"])
@pytest.mark.parametrize("name", WRITERS)
def test_images_that_a_file_names_and_that_are_not_here_are_counted_with_their_annotations(
    shape: str, name: str, world: World
) -> None:
    world.shape = shape
    world.image("a.png", "b.png", "c.png")
    world.write(name, WRITERS[name](("a.png", 1), ("b.png", 2), ("c.png", 1), ("y.png", 2), ("z.png", 1)))
    answer = world.run()
    told = f"{name} names 2 images of which no file is here, with 3 annotations; the first: y.png"
    assert answer.code == 0, answer.err
    assert told in world.notes
    assert world.counts() == [8, 4]
    assert told in world.run("check").out


@pytest.mark.parametrize("shape", ["points", "slides"])
@pytest.mark.parametrize("missing", ["", 'missing = "none"', "missing = true"])
def test_a_file_that_names_no_image_here_is_refused(shape: str, missing: str, world: World) -> None:
    world.shape, world.layout = shape, f"[layout]\n{missing}\n"
    world.image("a.png", "b.png", "c.png")
    world.write("all.json", coco(("y.png", 2), ("z.png", 1)))
    for command in ("", "check"):
        answer = world.run(command)
        assert answer.code == 1
        assert "all.json" in answer.err + answer.out
        assert "y.png" in answer.err + answer.out


def test_a_file_named_like_an_image_that_names_others_too_is_read_for_those(world: World) -> None:
    world.shape = "slides"
    world.image("a.png", "b.png", "c.png")
    world.write("a.json", coco(("a.png", 1), ("b.png", 2), ("c.png", 1), ("z.png", 2)))
    assert world.run().code == 0
    assert world.counts() == [8, 4]
    assert "a.json names 1 image of which no file is here, with 2 annotations; the first: z.png" in world.notes
    world.write("b.json", coco(("b.png", 1)))
    answer = world.run()
    assert answer.code == 1
    assert "two files of annotations for one slide" in answer.err
    assert "b.json and a.json" in answer.err


@pytest.mark.parametrize("shape", ["points", "slides"])
def test_objects_of_a_geojson_file_that_name_images_are_not_on_all_of_them(shape: str, world: World) -> None:
    """Each image had the objects of all."""
    world.shape = shape
    world.layout = "[files.annotations]\npattern = '[.]json$'\n" if shape == "slides" else ""
    world.image("a.png", "b.png")
    objects = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [5, 5 + 10 * number]},
            "properties": {"file": name, "classification": {"name": "m"}},
        }
        for number, name in enumerate(("a.png", "b.png"))
    ]
    world.write("all.json", json.dumps({"type": "FeatureCollection", "features": objects}).encode())
    answer = world.run()
    assert answer.code == 1
    assert "all.json: the property 'file' names an image for each object" in answer.err
    for one in objects:
        del one["properties"]["file"]  # type: ignore[attr-defined]
    world.write("all.json", json.dumps({"type": "FeatureCollection", "features": objects}).encode())
    assert world.run().code == 0
    assert world.counts() == [4, 4]
    assert "on all 2 images, as the file names none: the annotations of all.json" in world.notes


@pytest.mark.parametrize("shape", ["points", "slides"])
def test_images_of_one_name_in_two_folders_are_distinguished_by_their_folders(shape: str, world: World) -> None:
    world.shape, world.layout = shape, '[layout]\nmissing = "none"\n'
    if shape == "slides":
        world.image("data/one/1.png", "data/two/2.png", "x/3.png")
    else:
        world.image("data/one/1.png", "data/two/1.png", "x/3.png")
    world.write("all.json", coco(("one/1.png", 2), ("x/3.png", 1)))
    assert world.run().code == 0
    assert world.counts() == [9, 3]  # those of two/1.png show nothing


def test_a_name_that_fits_several_images_is_refused(world: World) -> None:
    world.image("one/1.png", "two/1.png", "three/2.png")
    world.write("all.json", coco(("1.png", 2), ("2.png", 1)))
    for command in ("", "check"):
        answer = world.run(command)
        assert answer.code == 1
        assert "the name '1.png' fits several images" in answer.err + answer.out
        assert "one/1.png, two/1.png" in answer.err + answer.out


SETS = {"train": 1, "valid": 2, "test": 0}
PLACES = {
    "beside": ("{}/_annotations.coco.json", "{}/"),
    "called as sets": ("annotations/instances_{}2017.json", "images/{}2017/"),
    "called as sets, years apart": ("annotations/instances_{}.json", "images/{}2017/"),
    "in parts": ("site_{}/labels/all.json", "site_{}/images/deep/"),
}


@pytest.mark.parametrize("shape", ["points", "slides"])
@pytest.mark.parametrize("place", PLACES)
def test_bare_names_in_several_folders_mean_the_images_near_the_file(place: str, shape: str, world: World) -> None:
    file, folder = PLACES[place]
    world.shape = shape
    if shape == "slides":
        world.pattern = "(?P<name>(?:[^/]+/)+[^/]+)\\.png$"
    for number, (name, boxes) in enumerate(SETS.items()):
        world.image(*(f"{folder.format(name)}{n}.png" for n in (1, 2)))
        world.write(file.format(name), coco(("1.png", boxes), ("2.png", number)))
    answer = world.run()
    assert answer.code == 0, answer.err
    rows = read_index(world.folder / "out" / "Named" / "index.parquet").to_pylist()
    found = Counter(row["source"] for row in rows if row["label"])
    expected = {f"{folder.format(n)}1.png": b for n, b in SETS.items()}
    expected |= {f"{folder.format(n)}2.png": number for number, n in enumerate(SETS)}
    assert found == {name: count for name, count in expected.items() if count}


@pytest.mark.parametrize(
    ("files", "images"),
    [
        (["labels/all.json"], ["labels/1.png", "images/1.png"]),  # perhaps pictures of the labels
        (["all_v1.json"], ["fold1/1.png", "fold2/1.png"]),
        (["train/val.json"], ["train/1.png", "val/1.png"]),
        (["a.json", "b.json"], ["one/1.png", "two/1.png"]),
    ],
)
def test_bare_names_that_no_folder_tells_apart_are_refused(files: list[str], images: list[str], world: World) -> None:
    world.layout = "[layout]\nmissing = true\n"
    world.image(*images)
    for file in files:
        world.write(file, coco(("1.png", 1)))
    answer = world.run()
    assert answer.code == 1
    assert "the name '1.png' fits several images" in answer.err


def test_an_entry_is_no_image_of_another_set_because_that_of_its_own_is_not_here(world: World) -> None:
    world.layout = "[layout]\nmissing = true\n"
    world.image("train/1.png", "val/1.png", "val/2.png")
    world.write("train.json", coco(("1.png", 1), ("2.png", 1)))
    assert world.run().code == 0
    assert world.counts() == [3, 1]
    assert any("train.json names 1 image of which no file is here" in note for note in world.notes)


def test_an_image_of_two_files_that_lies_near_one_of_them_is_refused(world: World) -> None:
    world.image("train/1.png", "train/2.png")
    world.write("train/all.json", coco(("1.png", 1), ("2.png", 1)))
    world.write("val/all.json", coco(("1.png", 2)))
    answer = world.run()
    assert answer.code == 1
    assert "train/1.png: two files name this image, which lies near one of them only" in answer.err
    assert "found train/all.json and val/all.json" in answer.err


def test_folders_decide_between_entries_of_one_name(world: World) -> None:
    world.image("data/one/1.png", "data/two/1.png", "data/two/3.png")
    world.write("all.json", coco(("one/1.png", 2), ("two/1.png", 1), ("two/3.png", 1)))
    assert world.run().code == 0
    assert world.counts() == [8, 4]


def test_names_fit_whatever_their_unicode_form_and_case() -> None:
    nfd = "Bo\u0308sartig/A.PNG"
    assert matching([nfd, "other.png"], "b\u00f6sartig/a.png") == [0]
    assert matching(["a.png", "A.png"], "A.png") == [1]
    assert matching(["x/a.png", "y/a.png"], "data/y/a.png") == [1]
    assert matching(["x\\a.png", "y\\a.png"], "data/y/a.png") == [1]
    assert Names([]).places("a") == []


@pytest.mark.parametrize("name", ["midogpp", "tiger-rois"])
def test_known_sources_count_what_their_lists_say_of_images_that_are_not_here(name: str, tmp_path: Path) -> None:
    manifest = with_defaults(find(name))
    options = Options.model_validate({"dense": True})
    manifest = options.with_targets(manifest)
    root = draw_fake(manifest, tmp_path)
    for archive in root.glob("*.zip"):
        shutil.unpack_archive(archive, root)
        archive.unlink()
    listing = next(iter(root.rglob("*.json")))
    content = json.loads(listing.read_text())
    content["images"] += [content["images"][0] | {"id": 9000 + n, "file_name": f"absent{n}.png"} for n in range(2)]
    content["annotations"] += [content["annotations"][0] | {"id": 90000 + n, "image_id": 9001} for n in range(3)]
    listing.write_text(json.dumps(content))
    said = "names 2 images of which no file is here, with 3 annotations; the first: absent1.png"
    told = f"{listing.relative_to(root)} {said}"
    found = check.check(Source.open(root, options.applied_to(manifest)), options)
    assert told in found.notes, found
    content["images"] = [entry | {"file_name": f"x{entry['id']}.png"} for entry in content["images"]]
    listing.write_text(json.dumps(content))
    found = check.check(Source.open(root, options.applied_to(manifest)), options)
    assert any("names no image that is here" in problem for problem in found.problems)


TILES = """
task = "Named"
shape = "slides"
classes = ["m", "n"]
[files.slides]
pattern = '(?P<name>[^/]+)\\.png$'
[files.table]
pattern = 'rows\\.csv$'
[layout]
group = ""
label = "{label}"
[rule]
type = "tiles"
size = 10
[split.strict]
share = [1, 0, 0]
"""


def read_names(world: World, label: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The labels of the images of a source, and the files that were read for them."""
    (world.folder / "tiles.toml").write_text(TILES.format(label=label))
    manifest = with_defaults(find(str(world.folder / "tiles.toml")))
    read, seen = Source.read, list[str]()
    monkeypatch.setattr(Source, "read", lambda source, name: seen.append(name) or read(source, name))  # type: ignore[func-returns-value]
    images = reader(manifest).images(Source.open(world.root, manifest))
    return [str(image.label) for image in images], seen


def test_a_file_about_several_slides_is_read_once_for_their_labels(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        f"{n}.png": {"filename": f"{n}.png", "size": 1, "regions": [], "file_attributes": {"kind": "mn"[n % 2]}}
        for n in range(4)
    }
    world.image(*files)
    world.write("all.json", json.dumps(files).encode())
    assert read_names(world, "", monkeypatch) == (["m", "n", "m", "n"], ["all.json"])


def test_a_table_of_slides_names_files_of_any_format(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.image("a.png", "b.png")
    world.write("rows.csv", b"slide,kind\nfolder/a.png,m\nB.PNG,n\n")
    assert read_names(world, "kind", monkeypatch)[0] == ["m", "n"]

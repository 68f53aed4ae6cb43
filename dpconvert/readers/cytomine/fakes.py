"""Fakes of Cytomine projects: lists with slides or crops, or the folders of crops that the paper's pool was made of.

They hold the traps of real ones: annotations without a term, with two, reviewed, listed twice, partly or wholly outside
their image, points, lines, crossing rings, holes, several parts; a slide that is in the project twice, one that is
listed without annotations and whose file is not there.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely

from dpconvert.manifest.rules import PatchGrid
from dpconvert.readers.cytomine.layout import Fake, Layout
from dpconvert.readers.fakes import FakeTree, Pixels

CELL = 112  # px for each object: they do not overlap
FIRST_TERM = 4762
SETS = ("train", "train", "train", "val", "test", "test")
Entry = dict[str, Any]


@dataclass
class FakeProject:
    """What is drawn so far: pixels of each image, and the lists as Cytomine holds them, y up."""

    terms: list[Entry]
    slides: dict[int, Pixels] = field(default_factory=dict)
    images: list[Entry] = field(default_factory=list)
    annotations: list[Entry] = field(default_factory=list)

    def add(self, image: int, term: list[int], location: str, **more: Any) -> Entry:
        """Add an annotation."""
        number = 10_000_000 + len(self.annotations)
        entry = {"id": number, "image": image, "term": term, "location": location, "reviewed": False} | more
        self.annotations.append(entry)
        return entry

    def box(self, image: int, term: int, at: tuple[int, int, int, int]) -> Entry:
        """Add a rectangular annotation: x, y, width, height in pixels, y down."""
        return self.add(image, [term], f"POLYGON ({_ring(at, len(self.slides[image]))})")


def draw(tree: FakeTree, layout: Layout) -> None:
    """Draw a project as `layout.fake` says."""
    fake = layout.fake
    project = FakeProject(_terms(layout))
    first_image = 20_000 + 100 * (sum(tree.manifest.name.encode()) % 97)
    for number in range(fake.slides):
        image = first_image + number
        if fake.regions:
            _regions(tree, project, image, number)
        else:
            _objects(tree, project, image)
        height, width = project.slides[image].shape[:2]
        base = fake.first + number
        facts = {"baseImage": base, "originalFilename": f"M{base}.tif", "width": width, "height": height}
        project.images.append({"id": image, **facts, "physicalSizeX": 0.25, "magnification": 40})
    if fake.form == "pool":
        _write_pool(tree, project, layout)
        return
    _traps(project)
    _twice(project)
    if fake.form == "crops":
        _write_crops(tree, project)
    else:
        _write_slides(tree, project)
    _write_lists(tree, project, fake)
    if fake.patients:
        lines = [f"M{fake.first + number}.tif,P{fake.first + number * 4 // 5}" for number in range(fake.slides)]
        tree.write("patients.csv", "\n".join(["image,patient", *lines, f"M{fake.first}9.tif,P00"]) + "\n")


def _terms(layout: Layout) -> list[Entry]:
    """Those that `labels` names and one that it leaves out; else those of `fake`. Of a pool, the numbers."""
    pool = layout.fake.form == "pool"
    names = [name for name in layout.labels if name.isdecimal() == pool]
    if names and pool:
        return [{"id": int(name), "name": name} for name in names]
    if names:
        names.append("Artefacts")
        ids = list(range(FIRST_TERM, FIRST_TERM + len(names)))
    else:
        ids = layout.fake.terms
        names = [f"Structure {number}" for number in range(1, len(ids) + 1)]
    return [{"id": i, "name": name, "color": "#ff0000"} for i, name in zip(ids, names, strict=True)]


def _objects(tree: FakeTree, project: FakeProject, image: int) -> None:
    """Two objects a term, each on its own piece of glass."""
    terms = [term["id"] for term in project.terms for _ in range(2)]
    columns = math.ceil(math.sqrt(len(terms)))
    rows = math.ceil(len(terms) / columns)
    pixels = np.full((rows * CELL, columns * CELL, 3), 243, np.uint8)
    project.slides[image] = pixels
    for k, term in enumerate(terms):
        w, h = (int(n) for n in tree.random.integers(40, CELL - 8, 2))
        x, y = k % columns * CELL + 4, k // columns * CELL + 4
        pixels[y : y + h, x : x + w] = tree.image(w, h, look=k // 2)
        project.box(image, term, (x, y, w, h))


def _regions(tree: FakeTree, project: FakeProject, image: int, number: int) -> None:
    """A slide of tissue with large outlines; on every fourth none is of the first term."""
    rule = tree.manifest.rule
    assert isinstance(rule, PatchGrid)
    side = 3 * rule.size
    half, margin = side // 2, side // 12
    outlined = [(margin, margin, half, half), (half, half, side // 3, side // 3)]
    tumour = outlined[number % 4 == 0 :] if number % 4 != 3 else []
    project.slides[image] = tree.tissue_slide(side, side, tumour, margin=(margin, margin))
    for at, term in zip(tumour, project.terms, strict=False):
        project.box(image, term["id"], at)
    project.box(image, project.terms[-1]["id"], (half + 40, margin, side // 4, side // 4))


def _traps(project: FakeProject) -> None:
    first, second, third = project.annotations[:3]
    image, term = first["image"], first["term"]
    height = len(project.slides[image])
    second["term"] = [*second["term"], project.terms[-1]["id"]]
    third["location"] = third["location"].replace("POLYGON ", "MULTIPOLYGON (") + ")"
    project.add(image, [], first["location"])
    project.add(image, term, first["location"], parentIdent=first["id"], reviewed=True)
    project.add(image, term, f"POLYGON ({_ring((-40, 10, 90, 60), height)})")
    project.add(image, term, f"POLYGON ({_ring((-90, 10, 40, 60), height)})")
    project.add(image, term, "POINT (20.5 30.25)")
    project.add(image, term, "LINESTRING (5 5, 60 60)")
    up, down = height - 10, height - 60
    project.add(image, term, f"POLYGON ((10 {up}, 60 {down}, 60 {up}, 10 {down}, 10 {up}))")
    hole = _ring((20, 20, 10, 10), height)
    project.add(image, term, f"POLYGON ({_ring((6, 6, 40, 40), height)}, {hole})")


def _twice(project: FakeProject) -> None:
    """The first slide again as another image, with an annotation; one without any; an annotation listed again."""
    listed, last = project.images[0], project.annotations[-1]
    copy = listed["id"] + 50
    project.images += [listed | {"id": copy}, listed | {"id": copy + 1, "baseImage": 1, "originalFilename": "gone.svs"}]
    project.slides[copy] = project.slides[listed["id"]]
    project.add(copy, last["term"], last["location"])
    project.annotations.append(project.annotations[0])


def _write_slides(tree: FakeTree, project: FakeProject) -> None:
    for file, image in {entry["originalFilename"]: entry["id"] for entry in project.images}.items():
        if image in project.slides:
            tree.slide(f"slides/{file}", project.slides[image], levels=1)


def _write_lists(tree: FakeTree, project: FakeProject, fake: Fake) -> None:
    half = len(project.annotations) // 2
    pages = {"annotations-1": project.annotations[:half], "annotations-2": project.annotations[half:]}
    if fake.lists != "server":
        pages = {"annotations": project.annotations}
    for file, entries in {**pages, "images": project.images, "terms": project.terms}.items():
        if fake.lists == "csv":
            tree.write(f"{file}.csv", _table(entries))
        elif fake.lists == "client":
            bare = [{k: v for k, v in entry.items() if v not in (None, [])} for entry in entries]
            tree.write(f"{file}.json", json.dumps([{"class_": "be.cytomine.domain", **entry} for entry in bare]))
        else:
            page = {"collection": entries, "offset": 0, "perPage": len(entries), "size": len(entries), "totalPages": 1}
            tree.write(f"{file}.json", json.dumps(page))


def _table(entries: list[Entry]) -> str:
    """Format a list as CSV, with several terms in one cell."""
    columns = list(dict.fromkeys(column for entry in entries for column in entry))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerow({k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in entry.items()})
    return out.getvalue()


def _write_crops(tree: FakeTree, project: FakeProject) -> None:
    """As the server cuts them: every annotation's, those without a term too."""
    for entry in project.annotations:
        crop = _cut(project, entry)
        if crop.size:
            tree.save(f"crops/{entry['image']}_{entry['id']}.png", crop)


def _write_pool(tree: FakeTree, project: FakeProject, layout: Layout) -> None:
    """<set>/<pool>_<term>/[<group>_]<image>_<annotation>.png; a crop with two terms lies in both folders."""
    order = {entry["id"]: number for number, entry in enumerate(project.images)}
    second = project.annotations[1]
    second["term"] = [*second["term"], project.terms[-1]["id"]]
    for entry in project.annotations:
        slide = order[entry["image"]]
        group = f"{slide // 2 + 1}_" if layout.fake.groups else ""
        for term in entry["term"]:
            folder = f"{SETS[slide // 2 % len(SETS)]}/{layout.pool}_{term}"
            tree.save(f"{folder}/{group}{entry['image']}_{entry['id']}.png", _cut(project, entry))


def _cut(project: FakeProject, entry: Entry) -> Pixels:
    left, low, right, high = shapely.from_wkt(entry["location"]).bounds
    pixels = project.slides[entry["image"]]
    height, width = pixels.shape[:2]
    x0, x1 = (int(min(max(edge, 0), width)) for edge in (left, right))
    y0, y1 = (int(min(max(height - edge, 0), height)) for edge in (high, low))
    return pixels[y0:y1, x0:x1]


def _ring(at: tuple[int, int, int, int], height: int) -> str:
    """The ring of x, y, width, height, y down, as WKT with y up."""
    x, y, w, h = at
    top, bottom = height - y, height - y - h
    return f"({x} {bottom}, {x + w} {bottom}, {x + w} {top}, {x} {top}, {x} {bottom})"

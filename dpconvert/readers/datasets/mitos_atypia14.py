"""MITOS-ATYPIA 14: sixteen x40 frames make one image, each frame with a table of mitoses and one of look-alikes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import shapely

from dpconvert.annotations import Annotation, Annotations, points
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.pairing import note_of_no_image
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

SIDE = 4  # frames in a row and in a column of an image
LABELS = {"mitosis": "Mitosis", "not_mitosis": "NonMitosis"}
TABLE = re.compile(r"([A-D])([a-d])_(not_mitosis|mitosis)\.[^/]*$")
SCANNERS = {
    "A": {"scanner": "Aperio ScanScope XT", "mpp": "0.2455"},
    "H": {"scanner": "Hamamatsu NanoZoomer 2.0-HT", "mpp": "0.2274"},
}


def images(source: Source) -> Iterator[SourceImage]:
    tables = {(found["name"], found["kind"]): found.name for found in source.need("points")}
    scored = {name[:3] for name, _ in tables}
    frames: dict[str, list[MatchedFile]] = defaultdict(list)
    for found in source.need("images"):
        frames[found["frame"]].append(found)
    withheld = sorted({parts[0]["slide"] for parts in frames.values()} - scored)
    if withheld:
        source.notes.append(f"slides without tables are left out: {', '.join(withheld)}")
    images = [
        _source_image(name, parts, tables) for name, parts in sorted(frames.items()) if parts[0]["slide"] in scored
    ]
    note_of_no_image(source, source.manifest.files["points"].what, tables.values(), images)
    yield from images


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    width, height = image.width // SIDE, image.height // SIDE
    items = []
    for name in source_image.annotations:
        table = TABLE.search(name)
        assert table is not None
        row, column = _place(table[1], table[2])
        for item in points.read_text(source.read(name), name, ["x", "y"], delimiter=",", label=LABELS[table[3]]):
            at = shapely.Point(item.geometry.x + column * width, item.geometry.y + row * height)
            items.append(Annotation(at, item.label))
    return Annotations(items)


def _source_image(name: str, parts: list[MatchedFile], tables: Mapping[tuple[str, str], str]) -> SourceImage:
    places = {_place(part["outer"], part["inner"]): part for part in parts}
    if not len(parts) == len(places) == SIDE**2:
        raise SourceError("not the sixteen x40 frames", where=parts[0].name, expected=SIDE**2, found=len(parts))
    ordered = [places[place] for place in sorted(places)]
    wanted = [(f"{name}{part['outer']}{part['inner']}", kind) for part in ordered for kind in LABELS]
    for frame, kind in wanted:
        if (frame, kind) not in tables:
            raise SourceError(
                "no table for this frame", where=name, expected=f"{frame}_{kind}.csv, even if it is empty"
            )
    slide = ordered[0]["slide"]
    return SourceImage(
        name,
        tuple(part.name for part in ordered),
        ordered[0]["biopsy"],
        columns=SIDE,
        annotations=tuple(tables[key] for key in wanted),
        attributes={"scan": slide} | SCANNERS[slide[0]],
    )


def _place(outer: str, inner: str) -> tuple[int, int]:
    """(row, column) of a frame by its letters: quarters of the image, then quarters of these."""
    first, second = ord(outer) - ord("A"), ord(inner) - ord("a")
    return 2 * (first // 2) + second // 2, 2 * (first % 2) + second % 2


def fake(tree: FakeTree) -> None:
    truth = {"Aa_mitosis": "100,120,0.8\n", "Ac_mitosis": "170.5,10,1 \n", "Bb_not_mitosis": "60,40,0.2\n"}
    spots = {"Aa": (100, 120), "Ac": (170, 10), "Bb": (60, 40)}
    for slide, (width, height) in {
        "A03": (171, 165),
        "H03": (175, 168),
        "A04": (171, 165),
        "H04": (175, 168),
        "A05": (171, 165),
        "H05": (175, 168),
        "A06": (171, 165),
    }.items():
        folder = f"{slide}/{slide}" if slide == "A04" else slide  # some copies are nested twice
        for frame in (f"{outer}{inner}" for outer in "ABCD" for inner in "abcd"):
            pixels = tree.coarse(width, height)
            if frame in spots:
                tree.spots(pixels, [spots[frame]], 10, (150, 90, 20) if frame == "Bb" else (50, 20, 80))
            tree.save(f"{folder}/frames/x40/{slide}_00{frame}.tiff", pixels, compression="tiff_lzw")
            for kind in LABELS if slide != "A06" else ():  # of the challenge's test set
                name = f"{slide}_00{frame}_{kind}.csv"
                tree.write(f"{folder}/mitosis/{name}", truth.get(f"{frame}_{kind}", ""))
        tree.save(f"{folder}/frames/x10/{slide}_00.tiff", tree.coarse(width, height), compression="tiff_lzw")

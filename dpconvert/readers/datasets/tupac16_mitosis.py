"""TUPAC16: one folder per patient with its images, and apart from them tables of mitoses where there are any."""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.annotations import Annotations, points
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.pairing import paired
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage


def images(source: Source) -> Iterator[SourceImage]:
    source.need("points")  # without any, every image would pass for one without mitoses
    for found, table in sorted(paired(source, "images", "points", missing="none"), key=lambda pair: pair[0]["name"]):
        name = found["name"].replace("/", "_")
        yield SourceImage(name, (found.name,), found["case"], annotations=(table.name,) if table else ())


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    tables = [(name, source.read(name)) for name in source_image.annotations]
    found = [points.read_text(data, name, ["y", "x"], delimiter=",", label="Mitosis") for name, data in tables]
    return Annotations([point for table in found for point in table])


def fake(tree: FakeTree) -> None:
    for part, cases in enumerate((("01", "02", "03", "10"), ("13", "14"), ("24", "25", "73")), start=1):
        for case in cases:
            side, count = (657, 1) if int(case) > 23 else (500, 2)
            for number in range(1, count + 1):
                pixels = tree.coarse(side, side)
                if number == 1 and case != "10":  # images without a mitosis have no table
                    places = [(float(x), float(y)) for x, y in tree.points(side, side, 2).astype(int)]
                    places.append((side - 1.0, 100.0))
                    tree.spots(pixels, places, 12, (50, 20, 80))
                    tree.write(f"mitoses_ground_truth/{case}/{number:02}.csv", _table(places))
                tree.save(f"mitoses_image_data_part_{part}/{case}/{number:02}.tif", pixels, compression="tiff_lzw")
    tree.pack("mitoses_ground_truth")
    tree.save("mitoses-test-image-data/01/01.tif", tree.coarse(500, 500), compression="tiff_lzw")


def _table(places: list[tuple[float, float]]) -> str:
    return "".join(f"{y:.0f},{x:.0f}\n" for x, y in places)

"""PUMA: regions of melanoma, and for each a file of QuPath with its tissue and one with its nuclei."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dpconvert.annotations import Annotation, Annotations
from dpconvert.annotations.formats import qupath
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.pairing import ByName, paired
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

TISSUE = ("tumor", "stroma", "epidermis", "blood_vessel", "necrosis", "white_background")
NUCLEI = (
    "tumor",
    "stroma",
    "endothelium",
    "histiocyte",
    "melanophage",
    "lymphocyte",
    "plasma_cell",
    "neutrophil",
    "apoptosis",
    "epithelium",
)


def images(source: Source) -> Iterator[SourceImage]:
    nuclei = ByName(source.match("nuclei"), source.manifest.files["nuclei"].what)
    for found, tissue in paired(source, "images", "tissue", missing="error"):
        assert tissue is not None
        drawn = [tissue.name]
        if source.manifest.dense is not None:
            of_it = nuclei.get(found["name"])
            if of_it is None:
                raise SourceError(
                    "no outlines of nuclei for this image",
                    where=found.name,
                    remedy="add them, or convert without --dense",
                )
            drawn.append(of_it.name)
        yield SourceImage(
            found["name"], (found.name,), found["name"], annotations=tuple(drawn), attributes={"site": found["site"]}
        )
    source.notes += nuclei.notes() if source.manifest.dense is not None else []


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    """The tissue of a region; with dense targets its nuclei too, as points."""
    name, *others = source_image.annotations
    tissue = qupath.read(source.read(name), name, [f"tissue_{kind}" for kind in TISSUE])
    items = [replace(item, label=_class(item), id=f"tissue-{item.id}") for item in tissue.items]
    remarks = tissue.remarks
    for name in others:
        nuclei = qupath.read(source.read(name), name, [f"nuclei_{kind}" for kind in NUCLEI])
        items += [replace(item, geometry=item.geometry.centroid) for item in nuclei.items]
        remarks = remarks + nuclei.remarks
    return Annotations(items, remarks)


def _class(item: Annotation) -> str:
    return item.label.removeprefix("tissue_").replace("_", " ")


def fake(tree: FakeTree) -> None:
    folder = "01_training_dataset"
    for number in range(8):
        name = f"training_set_{('primary', 'metastatic')[number % 2]}_roi_{(1 + number // 2, 103)[number == 7]:03}"
        pixels, tissue, nuclei = tree.coarse(512, 512), [], []
        for place in range(9):  # the middles of the patches
            kind = (place + number) % len(TISSUE)
            x, y = 96 + 128 * (place % 3), 96 + 128 * (place // 3)
            pixels[y : y + 64, x : x + 64] = tree.coarse(64, 64, kind)
            tissue.append(_feature(f"tissue_{TISSUE[kind]}", [_square(x - 16, y - 16, 96)]))
            nucleus = NUCLEI[(place + number) % len(NUCLEI)]
            tree.spots(pixels, [(x + 20, y + 20)], 7, (60, 30, 110))
            nuclei.append(_feature(f"nuclei_{nucleus}", [_square(x + 12.5, y + 12.5, 15)]))
        tissue.append(_feature("tissue_stroma", [_square(0, 0, 60), _square(452, 0, 60)]))
        alpha = np.full((512, 512), 255, np.uint8)
        tree.save(f"{folder}_tif_ROIs/{folder}_tif_ROIs/{name}.tif", np.dstack([pixels, alpha]), compression="tiff_lzw")
        for what, features in (("tissue", tissue), ("nuclei", nuclei)):
            text = json.dumps({"type": "FeatureCollection", "features": features})
            tree.write(f"{folder}_geojson_{what}/{folder}_geojson_{what}/{name}_{what}.geojson", text)
    for what in ("tif_ROIs", "geojson_tissue", "geojson_nuclei"):
        tree.pack(f"{folder}_{what}")


def _square(x: float, y: float, side: float) -> list[list[list[float]]]:
    right, bottom = x + side, y + side
    return [[[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]]


def _feature(label: str, rings: list[list[list[list[float]]]]) -> dict[str, object]:
    several = len(rings) > 1
    geometry = {"type": "MultiPolygon" if several else "Polygon", "coordinates": rings if several else rings[0]}
    properties = {"objectType": "annotation", "classification": {"name": label, "color": [200, 0, 0]}}
    return {"type": "Feature", "id": label, "geometry": geometry, "properties": properties}

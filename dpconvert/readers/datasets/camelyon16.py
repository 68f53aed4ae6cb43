"""Camelyon16: pyramidal slides, tumour outlined in ASAP XML; names of all three layouts, in any case."""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.annotations import Annotations
from dpconvert.annotations.formats import asap
from dpconvert.errors import SourceError
from dpconvert.image import Image
from dpconvert.manifest.rules import Regional
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.pairing import note_of_no_image
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage


def images(source: Source) -> Iterator[SourceImage]:
    outlines = {_name(found): found.name for found in source.match("annotations")}
    used = list[SourceImage]()
    for found in sorted(source.need("slides"), key=_name):
        name = _name(found)
        if name.startswith("tumor") and name not in outlines:
            raise SourceError("no outlines for this slide", where=found.name, expected=f"{name}.xml")
        used.append(SourceImage(name, (found.name,), name, annotations=(outlines[name],) if name in outlines else ()))
        yield used[-1]
    note_of_no_image(source, source.manifest.files["annotations"].what, outlines.values(), used)


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    rule = source.manifest.rule
    assert isinstance(rule, Regional)
    if not source_image.annotations:
        return Annotations([])
    name = source_image.annotations[0]
    return asap.read(source.read(name), name, known=rule.known())


def fake(tree: FakeTree) -> None:
    width, height, margin = 3072, 2304, (640, 384)  # the patches in the corners hold less than 10% of tissue
    for number in range(1, 5):
        padding = 384 if number == 2 else 0
        pixels = tree.tissue_slide(width, height, padding=padding, margin=margin)
        tree.slide(f"training/normal/normal_{number:03}.tif", pixels, mpp=0.243)
    for number in range(1, 6):
        pixels = tree.tissue_slide(width, height, [(768, 768, 1536, 768)], margin=margin)
        tree.slide(f"training/tumor/tumor_{number:03}.tif", pixels)
        ring = [(768.5, 768.0), (2304.0, 768.0), (2304.0, 1536.0), (768.0, 1536.0)]
        hole = [(1600.0, 800.0), (2000.0, 800.0), (2000.0, 1200.0), (1600.0, 1200.0)]
        bow_tie = [(1000.0, 1600.0), (1400.0, 2000.0), (1400.0, 1600.0), (1000.0, 2000.0)]
        degenerate = [(100.0, 100.0), (200.0, 200.0)]
        named = [("_0" if number % 2 else "Tumor", ring), ("_2", hole), ("Tumor", bow_tie), ("Tumor", degenerate)]
        tree.asap(f"training/lesion_annotations/tumor_{number:03}.xml", named)
    tree.pack("training/lesion_annotations")
    tree.slide("testing/images/test_001.tif", tree.tissue_slide(512, 512), levels=1)
    tree.write("testing/reference.csv", "test_001,Tumor,IDC,Macro\n")


def _name(found: MatchedFile) -> str:
    kind, _, number = found["name"].lower().partition("_")
    return f"{kind}_{int(number):03}"

"""Shape "cytomine": exports of Cytomine projects, with their slides or with crops that are already cut.

With lists: annotations*.json (pages, several projects; with WKT for slides), images*.json and terms*.json as the client
or the server writes them, or the same as .csv, and either the slides, named as in Cytomine or by image id, or the crops
`<image>_<annotation>.png`, by ids. Crops alone:
`[train|val|test/]<term id or name>/[<group>_]<image>_<annotation>.png`. patients.csv (columns image and patient;
slides.csv and groups.csv alike) states which images must stay together, by image id, slide id or file name. The id of
a slide is that of its base image, which all projects of a server share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from dpconvert.annotations import Annotations
from dpconvert.annotations.formats import cytomine
from dpconvert.annotations.formats.cytomine import CytomineImage, Labelled
from dpconvert.errors import ReadError, SourceError
from dpconvert.image import Image
from dpconvert.manifest.catalog import typed
from dpconvert.manifest.files import FileKind
from dpconvert.manifest.rules import SANE_MPP, Crop, Regional
from dpconvert.readers.cytomine import export, fakes
from dpconvert.readers.cytomine.export import Export
from dpconvert.readers.cytomine.groups import Groups
from dpconvert.readers.cytomine.layout import Layout, notes_of, number_first
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layout_keys import as_split, layout_of
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage


def _list_of(what: str) -> FileKind:
    pattern = rf"(?i)(^|/){what}([-_.]?\d+)?\.(json|csv)$"
    return FileKind(pattern=pattern, what=f"lists of {what}", example=f"{what}.json", optional=True)


FILES = {
    "annotations": _list_of("annotations"),
    "images": _list_of("images"),
    "terms": _list_of("terms"),
    "groups": FileKind(
        pattern=r"(?i)(^|/)(patients|slides|groups)\.csv$",
        what="tables of patients",
        example="patients.csv",
        optional=True,
    ),
    "slides": FileKind(
        pattern=r"(?i)\.(svs|ndpi|mrxs|scn|tiff?|bif|svslide|vms)$|(^|/)slides/[^/]+\.(png|jpe?g)$",
        what="slides",
        example="slides/M12.tif",
        optional=True,
    ),
    "crops": FileKind(
        pattern=r"(^|/)((?P<split>train|val|test)/)?(?P<term>[^/]+)/"
        r"(?P<name>((?P<group>[^/_]+)_)?(?P<image>\d+)_(?P<annotation>\d+))\.(?i:png|jpe?g)$",
        what="crops",
        example="crops/4762/76162_78909.png",
        optional=True,
    ),
}


def images(source: Source) -> Iterator[SourceImage]:
    if not source.match("annotations"):
        return _crops_alone(source)
    listed = export.read(source)
    source.notes += listed.notes
    files = {number: export.slide_file(source, listed.slides[number]) for number in listed.by_image}
    present = {number: file for number, file in files.items() if file is not None}
    if len(present) == len(files):
        return _slides(source, listed, present)
    if source.match("crops") and not isinstance(source.manifest.rule, Regional):
        return _listed_crops(source, listed)
    first = listed.slides[next(number for number in files if number not in present)]
    raise SourceError(
        f"{len(files) - len(present)} of {len(files)} annotated slides are missing",
        where=source.root,
        expected=first.original_filename or f"a file named {first.id}",
        remedy=f"put the slides beside the lists, see `dpconvert show {typed(source.manifest)}`",
    )


def classes(source: Source) -> list[str]:
    """The classes that occur, in the order of `labels`, else of term ids (crops alone: of folders, ids as numbers)."""
    if source.match("annotations"):
        return export.read(source).classes
    layout = layout_of(source.manifest, Layout)
    folders = sorted({_term(found, layout) for found in source.match("crops")}, key=number_first)
    labels = [label for folder in folders if (label := layout.label(folder)) is not None]
    return layout.ordered(set(labels), labels)


def read_annotations(source: Source, source_image: SourceImage, image: Image) -> Annotations:
    listed, number = export.read(source), int(source_image.extra["image"])
    size, slide = (image.width, image.height), listed.slides[number]
    if slide.width and slide.height and (slide.width, slide.height) != size:
        raise ReadError(
            "slide of another size than its annotations are for",
            where=source_image.files[0],
            expected=f"{slide.width} x {slide.height}",
            found=f"{size[0]} x {size[1]}",
            remedy="use the file that the project holds",
        )
    areas = isinstance(source.manifest.rule, Crop | Regional)
    return cytomine.shapes(listed.by_image[number], size, listed.file, areas=areas)


def fake(tree: FakeTree) -> None:
    fakes.draw(tree, layout_of(tree.manifest, Layout))


def _slides(source: Source, listed: Export, files: dict[int, str]) -> Iterator[SourceImage]:
    groups = Groups(source)
    for number, file in files.items():
        slide, extra = listed.slides[number], {"image": str(number)}
        yield SourceImage(
            str(number),
            (file,),
            groups.of(slide),
            annotations=(listed.file,),
            extra=extra,
            attributes=_attributes(slide),
        )
    groups.tell()


def _listed_crops(source: Source, listed: Export) -> Iterator[SourceImage]:
    """The crops of the listed annotations, in any folder."""
    groups, files = Groups(source), {int(found["annotation"]): found for found in source.match("crops")}
    left_out: Counter[str] = Counter()
    annotations = [kept for number in listed.by_image for kept in _with_crops(listed, number, left_out)]
    absent = [labelled.item for labelled in annotations if labelled.item.id not in files]
    if absent:
        raise SourceError(
            f"{len(absent)} of {len(annotations)} crops are missing",
            where=source.root,
            expected=f"{absent[0].image}_{absent[0].id}.png",
            remedy="fetch them again: existing ones are kept",
        )
    source.notes += [f"annotations: {count} x {what}" for what, count in sorted(left_out.items())]
    for labelled in annotations:
        found, slide = files[labelled.item.id], listed.slides[labelled.item.image]
        yield _crop(found, labelled.label, groups, slide)
    groups.tell()


def _with_crops(listed: Export, number: int, left_out: Counter[str]) -> list[Labelled]:
    """The annotations of an image that would be crops of its slide, as far as the lists tell."""
    annotations, slide = listed.by_image[number], listed.slides[number]
    if not (slide.width and slide.height and all(labelled.item.location for labelled in annotations)):
        return annotations
    drawn = cytomine.shapes(annotations, (slide.width, slide.height), listed.file, areas=True)
    left_out.update({what: count for what, count in drawn.remarks.items() if what in cytomine.DROPPED})
    drawn_ids = {item.id for item in drawn.items}
    return [labelled for labelled in annotations if str(labelled.item.id) in drawn_ids]


def _crops_alone(source: Source) -> Iterator[SourceImage]:
    """Crops in one folder per term. One that lies in several folders has several terms, in the order of the folders."""
    if not source.match("crops"):
        raise SourceError(
            "neither lists of annotations nor crops here",
            where=source.root,
            expected="annotations.json with images.json, terms.json and slides or crops, or TERM/IMAGE_ANNOTATION.png",
            remedy=f"see `dpconvert show {typed(source.manifest)}`",
        )
    layout, groups = layout_of(source.manifest, Layout), Groups(source)
    copies: dict[str, list[MatchedFile]] = defaultdict(list)
    for found in sorted(source.match("crops"), key=lambda found: number_first(_term(found, layout))):
        copies[found["name"]].append(found)
    layout.check({_term(found, layout) for of_name in copies.values() for found in of_name}, source)
    left_out: Counter[str] = Counter()
    for name, of_name in sorted(copies.items()):
        label = layout.choose(name, [layout.label(_term(found, layout)) for found in of_name], left_out)
        if label is not None:
            yield _crop(of_name[0], label, groups, CytomineImage(id=int(of_name[0]["image"])))
    source.notes += notes_of("crops", left_out)
    groups.tell()


def _crop(found: MatchedFile, label: str, groups: Groups, slide: CytomineImage) -> SourceImage:
    group, split = found["group"] or groups.of(slide), as_split(found["split"])
    return SourceImage(found["name"], (found.name,), group, label=label, split=split, attributes=_attributes(slide))


def _term(found: MatchedFile, layout: Layout) -> str:
    return found["term"].removeprefix(f"{layout.pool}_") if layout.pool else found["term"]


def _attributes(slide: CytomineImage) -> dict[str, str]:
    mpp = slide.physical_size_x or slide.resolution or 0.0
    known = SANE_MPP[0] <= mpp <= SANE_MPP[1]
    return {"slide": slide.key, "image": str(slide.id)} | ({"mpp": str(mpp)} if known else {})

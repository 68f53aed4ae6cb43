"""Slides that consist of several files: find which files belong together, and name each slide.

    DICOM       all instances of one SeriesInstanceUID, whatever their folders and names (Supplement 145)
    MIRAX       a.mrxs with the folder a/ beside it
    Hamamatsu   a.vms or a.vmu with the files that it names
    OME-TIFF    files that hold planes of one image
    Olympus     a.vsi with the folder _a_/ beside it (extra `vsi`)

The folder of an OME-Zarr is one file to all of this package.

A pattern treats such a slide as one file: the first matching name in `MultiFileSlide.names` counts. Slides of formats
that are not supported, and their parts, are counted in a note.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dpconvert.errors import ReadError
from dpconvert.image.ome.ome_metadata import has_ome_xml
from dpconvert.image.tiff.tiff_layout import layout
from dpconvert.image.unread import EXTRAS, remedy, unread
from dpconvert.image.vsi.ets import PIXEL_FILE
from dpconvert.plural import counted
from dpconvert.source.copies import is_file
from dpconvert.source.slides.dicom_identity import DICOM_NAME, Instance, instance

TIFF_NAME = re.compile(r"(?i)\.(tiff?|tf[28]|btf)$")
MIRAX_DATA = re.compile(r"(?i)(^slidedat\.ini|\.dat)$")
VSI_FOLDER = re.compile(r"(?P<above>(?:.*/)?)_(?P<slide>[^/]+)_/")
SLIDES = "SM"  # the modality of slide microscopy
DRAWN = {"SEG": "segmentation", "ANN": "file of annotations", "SR": "structured report", "RTSTRUCT": "structure set"}
UID, PLAIN = re.compile(r"[\d.]+"), re.compile(r"[\w.-]+( [\w.-]+)*")
LEVEL_WORD = re.compile(r"(?i)[-._ ]+(level|layer|image|img|file|instance|dcm|res|resolution)$")
NAMELESS = {"", "unknown", "none", "anonymous", "anonymized"}
LONGEST_VMS = 1 << 20


@dataclass(frozen=True)
class MultiFileSlide:
    """A slide of several files.

    main: the file that identifies it. files: all, sorted. names: the names that patterns match. aliases: its other
    names, without folders and suffixes. staged: whether its files are mixed with those of other slides, or scattered.
    """

    main: str
    files: tuple[str, ...]
    names: tuple[str, ...]
    aliases: frozenset[str] = frozenset()
    staged: bool = False


@dataclass(frozen=True)
class SlideFiles:
    """Slides of several files by main file, files that are not separate images, and notes.

    drawn: DICOM files of annotations, which are not read.
    """

    slides: Mapping[str, MultiFileSlide] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    drawn: tuple[Instance, ...] = ()

    def files_of(self, name: str) -> tuple[str, ...]:
        """Return all files of a slide; for any other name, only that name."""
        return self.slides[name].files if name in self.slides else (name,)


def slide_files(root: Path, names: Iterable[str]) -> SlideFiles:
    """Find the files below `root` (sorted relative names) that form slides together; archives have no such slides."""
    every = list(names)
    listed = [name for name in every if is_file(root, name)]
    instances = [found for name in listed if DICOM_NAME.search(name) and (found := instance(root, name))]
    slides, parts, notes = _series(instances)
    for group in (*_mirax(listed), *_hamamatsu(root, listed), *_ome(root, listed)):
        slides[group.main] = group
        parts |= {*group.files} - {group.main}
    parts |= {name for name in listed if unread(name) and PurePosixPath(name).suffix.lower() in EXTRAS}  # noted
    pixels = _vsi_data(every)
    slides |= {group.main: group for group in _olympus(listed, pixels)}
    parts |= {name for files in pixels.values() for name in files}
    drawn = tuple(one for one in instances if one.modality in DRAWN)
    notes += [*_unread(root, every), *_headless(pixels, every)]
    return SlideFiles(_without_shared_names(slides), frozenset(parts), tuple(notes), drawn)


def slide_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the name of each slide, without folders and suffix: of a DICOM file the name of its series, of another
    file or folder its own.
    """
    every = list(paths)
    names = {path: path.stem for path in every}
    for folder in dict.fromkeys(path.absolute().parent for path in every if DICOM_NAME.search(path.name)):
        beside = sorted(f"{folder.name}/{path.name}" for path in folder.iterdir() if path.is_file())
        slides = slide_files(folder.parent, beside).slides.values()
        called = {file: slide.names[0] for slide in slides if slide.names for file in slide.files}
        for path in every:
            if path.absolute().parent == folder and (name := called.get(f"{folder.name}/{path.name}")):
                names[path] = PurePosixPath(name).stem
    return names


def _series(instances: list[Instance]) -> tuple[dict[str, MultiFileSlide], set[str], list[str]]:
    """Return slides of DICOM files by main file, files that are not separate images, and notes."""
    series: defaultdict[str, list[Instance]] = defaultdict(list)
    other: list[Instance] = []
    for one in instances:
        (series[one.series] if one.modality == SLIDES else other).append(one)
    volumes = {uid: some for uid, some in series.items() if any(one.flavor == "VOLUME" for one in some)}
    other += [one for uid, some in series.items() if uid not in volumes for one in some]
    in_folder = Counter(folder for one in instances for folder in _folders(one.file))
    slides, parts, twice = {}, {one.file for one in other}, 0
    for some in volumes.values():
        by_name = sorted(some, key=lambda one: (len(one.file), one.file), reverse=True)  # "a.dcm" before "a copy.dcm"
        kept = list({one.uid: one for one in by_name}.values())
        twice += len(some) - len(kept)
        again = Counter(folder for one in {*some} - {*kept} for folder in _folders(one.file))
        slide = _slide_of(kept, some, in_folder - again)
        slides[slide.main] = slide
        parts |= {one.file for one in some} - {slide.main}
    notes = []
    if other:
        first = min(other, key=lambda one: one.file)
        what = f"{counted(len(other), 'DICOM file')} without a slide's pixels ({first.modality})"
        notes.append(f"{what} left out, the first: {first.file}")
    if twice:
        notes.append(f"read once: {counted(twice, 'DICOM file')} with the same SOPInstanceUID as another")
    coarse = [some for some in volumes.values() if all(one.resampled for one in some if one.flavor == "VOLUME")]
    if coarse:
        which = min(one.file for some in coarse for one in some if one.flavor == "VOLUME")
        what = f"{counted(len(coarse), 'DICOM slide')} without an image of full resolution, the first: {which}"
        notes.append(f"{what}; annotations that were drawn on it do not fit the coarser ones, which are read")
    return slides, parts, notes


def _slide_of(kept: list[Instance], every: list[Instance], in_folder: Counter[str]) -> MultiFileSlide:
    """Return the slide of a series (`every` includes duplicate files) with its names.

    in_folder: DICOM files in each folder and those below it.

    The name is that of its folder, or of the one above its folders, if that holds nothing else; the common beginning of
    its file names, or the label on its glass if these are only UIDs; else the name of the file with its largest image.
    """
    kept = sorted(kept, key=lambda one: (one.flavor != "VOLUME", -one.width, one.file))
    main, files = kept[0].file, tuple(sorted(one.file for one in kept))
    folder, container = _shared_folder(files), kept[0].container.strip()
    alone = in_folder[folder] == len(files)
    together = alone and {_folder(file) for file in files} == {folder}
    names = [f"{folder}.dcm"] if alone and folder and len(files) > 1 else []
    names += _common(files)
    if UID.fullmatch(_stem(main)) and PLAIN.fullmatch(container) and container.lower() not in NAMELESS:
        names.append(str(PurePosixPath(folder) / f"{container}.dcm"))
    names += [one.file for one in kept]
    names += [f"{name}.dcm" for name in names if not name.lower().endswith(".dcm")]  # named by a UID alone
    called = {_stem(one.file) for one in every} | {PurePosixPath(_folder(one.file)).name for one in every}
    called |= {kept[0].series, container}
    aliases = frozenset(name for name in called if name.lower() not in NAMELESS)
    staged = not (together and len(every) == len(kept) and main.lower().endswith(".dcm"))
    return MultiFileSlide(main, files, tuple(dict.fromkeys(names)), aliases, staged)


def _common(files: tuple[str, ...]) -> Iterator[str]:
    """Return the common beginning of a slide's file names, up to a separator: 'a/s1.dcm' for 'a/s1_0.dcm' ..."""
    if len(files) < 2:
        return
    bare = [PurePosixPath(name).name for name in files]
    first, last = min(bare), max(bare)
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), 0)
    word = re.match(r"(.*[^-._ ])[-._ ]", first[:same])
    whole = LEVEL_WORD.sub("", word[1]) if word else ""
    if whole and not UID.fullmatch(whole):  # else a root of UIDs, which all slides share
        yield str(PurePosixPath(_shared_folder(files)) / f"{whole}.dcm")


def _without_shared_names(slides: dict[str, MultiFileSlide]) -> dict[str, MultiFileSlide]:
    """Return the slides without the names that two of them share."""
    names = Counter(name for slide in slides.values() for name in set(slide.names))
    aliases = Counter(alias for slide in slides.values() for alias in slide.aliases)
    return {
        main: MultiFileSlide(
            main,
            slide.files,
            tuple(name for name in slide.names if names[name] == 1),
            frozenset(alias for alias in slide.aliases if aliases[alias] == 1),
            slide.staged,
        )
        for main, slide in slides.items()
    }


def _mirax(names: list[str]) -> Iterator[MultiFileSlide]:
    mains = {name[: -len(".mrxs")]: name for name in names if name.lower().endswith(".mrxs")}
    inside: defaultdict[str, list[str]] = defaultdict(list)
    for name in names if mains else ():
        if _folder(name) in mains and MIRAX_DATA.search(PurePosixPath(name).name):
            inside[_folder(name)].append(name)
    for folder, files in inside.items():
        yield MultiFileSlide(mains[folder], (mains[folder], *files), (mains[folder],))


def _hamamatsu(root: Path, names: list[str]) -> Iterator[MultiFileSlide]:
    known = set(names)
    for name in names:
        if not name.lower().endswith((".vms", ".vmu")):
            continue
        try:
            with (root / name).open(encoding="latin-1") as file:
                values = [line.partition("=")[2].strip() for line in file.read(LONGEST_VMS).splitlines()]
        except OSError:
            continue
        beside = {str(PurePosixPath(_folder(name)) / value) for value in values if value}
        yield MultiFileSlide(name, (name, *sorted(beside & known - {name})), (name,))


def _ome(root: Path, names: list[str]) -> Iterator[MultiFileSlide]:
    """Return sets of OME-TIFFs that hold the planes of one image, by their first file."""
    known, done = set(names), set[str]()
    for name in names:
        if name in done or not TIFF_NAME.search(name) or not has_ome_xml(root / name):
            continue
        try:
            found = layout(root / name)
        except ReadError:
            continue
        files = sorted(str(PurePosixPath(_folder(name)) / file) for file in (found.files if found else ()))
        if len(files) > 1 and known.issuperset(files):
            done.update(files)
            aliases = frozenset(map(_stem, (*files, *_common(tuple(files)))))
            yield MultiFileSlide(files[0], tuple(files), tuple(files), aliases)


def _vsi_data(names: list[str]) -> dict[str, list[str]]:
    """Return a slide of Olympus, without its suffix -> the files in the folder of its pixels, `_slide_/stack1/`."""
    inside: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        if folder := VSI_FOLDER.match(name):
            inside[folder["above"] + folder["slide"]].append(name)
    heads = {name[: -len(".vsi")] for name in names if name.lower().endswith(".vsi")}
    return {slide: files for slide, files in inside.items() if slide in heads or any(map(PIXEL_FILE.search, files))}


def _olympus(names: list[str], pixels: dict[str, list[str]]) -> Iterator[MultiFileSlide]:
    """Return the slides of Olympus that can be read, with the files of their tiles."""
    for name in names:
        if name.lower().endswith(".vsi") and unread(name) is None:
            tiles = [file for file in pixels.get(name[: -len(".vsi")], ()) if PIXEL_FILE.search(file)]
            yield MultiFileSlide(name, (name, *tiles), (name,))


def _headless(pixels: dict[str, list[str]], names: list[str]) -> Iterator[str]:
    """Return a note on slides of Olympus of which only the folder of pixels is here."""
    heads = {name[: -len(".vsi")] for name in names if name.lower().endswith(".vsi")}
    if absent := sorted(pixels.keys() - heads):
        yield f"not read: {counted(len(absent), 'slide')} of Olympus VSI without the file {absent[0]}.vsi, its head"


def _unread(root: Path, names: list[str]) -> Iterator[str]:
    """Return a note on the slides of each format that is not supported."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        is_optional = PurePosixPath(name).suffix.lower() in EXTRAS
        if (what := unread(name)) is not None and (is_file(root, name) or not is_optional):
            found[what].append(name)
    for what, files in sorted(found.items()):
        found_here = f"{counted(len(files), 'slide')} in a format that is not read ({what}), the first: {files[0]}"
        yield f"{found_here}; {remedy(files[0])}"


def _shared_folder(files: Sequence[str]) -> str:
    """Return the deepest folder that holds all these files, itself or in folders of its own; '' for the root."""
    return posixpath.commonpath([_folder(name) for name in files]) if all(map(_folder, files)) else ""


def _folders(name: str) -> list[str]:
    """Return the folder of a file and those above it, without the root unless the file lies in it."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1] or [""]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _stem(name: str) -> str:
    return re.sub(r"(?i)(\.ome)?\.(dcm|dicom|dic|ima|tiff?)$", "", PurePosixPath(name).name)

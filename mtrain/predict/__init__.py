"""Applies a trained head to slides and images: a heat map for each slide, a table for the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from dpconvert.errors import ReadError
from dpconvert.image import SLIDE_SUFFIXES, Image, open_image
from dpconvert.image.unread import is_folder
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from dpconvert.source.slides.slide_files import slide_files, slide_names
from mtrain.errors import UsageError, UserError
from mtrain.predict.classifier import Classifier
from mtrain.predict.dense import lines, segment_slide
from mtrain.predict.image_files import SUFFIXES, OnFailure, predict_images
from mtrain.predict.segmenter import Segmenter
from mtrain.predict.slide import Patch, predict_slide

__all__ = ["Classifier", "Patch", "Segmenter", "predict", "predict_dense"]

ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z"}
FOUR = 4  # a file in a slide format that holds fewer patches than this is treated as a single image
T = TypeVar("T")


def stop(_: Path, error: UserError) -> None:
    """Raise the error of a file, so that no other file is predicted."""
    raise error


def predict(
    classifier: Classifier,
    paths: Sequence[Path],
    patch: Patch,
    out: Path,
    report: Reporter,
    shown: str | None = None,
    *,
    features: bool = False,
    workers: int = 0,
    on_failure: OnFailure = stop,
) -> list[dict[str, Any]]:
    """Write a heat map for each slide, and a row of `images.csv` for each other image, to `out`.

    paths: files, or folders, which are searched at any depth. shown: the class that heat maps show. features: also
    write those of the patches of slides. workers: processes that read these patches; 0: this one. on_failure: is called
    for each file that cannot be predicted, and its error; if it returns, the next file follows. Returns one dictionary
    for each slide (the fields of `slide.Answered`) and one for the table.

    Raises:
        UsageError: there is no such file or class, or nothing to read.
        ReadError: a file cannot be read.
    """
    label = classifier.label(shown)
    slides, images = _slides_and_images(files_to_predict(paths, report), patch, on_failure)
    if slides and classifier.about.target != "class":
        raise UsageError(
            f"a heat map shows one class, and {classifier.about.task} has images with "
            f"{'any number of classes' if classifier.about.target == 'labels' else 'numbers'}",
            where=slides[0],
            remedy="give images of the size of patches",
        )

    def predicted(slide: Path, name: str) -> dict[str, Any]:
        made = predict_slide(classifier, slide, patch, out / name, report, label, features=features, workers=workers)
        return asdict(made)

    results = _each(slides, predicted, on_failure)
    if images:
        if features:
            report.note(f"--features has no effect on {counted(len(images), 'image')}: features are those of slides")
        table, failed = out / "images.csv", 0

        def skip(file: Path, error: UserError) -> None:
            nonlocal failed
            on_failure(file, error)
            failed += 1

        counts = predict_images(classifier, images, table, report, skip)
        if counts is not None:
            results.append({"file": str(table), "images": len(images) - failed, "classes": counts})
    return results


def predict_dense(
    segmenter: Segmenter,
    paths: Sequence[Path],
    patch: Patch,
    out: Path,
    report: Reporter,
    workers: int = 0,
    on_failure: OnFailure = stop,
) -> list[dict[str, Any]]:
    """Write the masks and points of each slide to `out`. Returns one dictionary for each (the fields of
    `dense.Segmented`, and `line`).

    on_failure: as of `predict`.

    Raises:
        UsageError: there is no such file, or one that is not a slide.
        ReadError: a file cannot be read.
    """
    slides, images = _slides_and_images(files_to_predict(paths, report), patch, on_failure)
    for image in images:
        size = f"fewer than {FOUR} patches of {patch.side} px" if image.suffix.lower() in SLIDE_SUFFIXES else None
        on_failure(image, UsageError("--dense applies only to slides; this is an image", where=image, found=size))

    def segmented(slide: Path, name: str) -> dict[str, Any]:
        made = segment_slide(segmenter, slide, patch, out / name, report, workers)
        return asdict(made) | {"line": lines(made)}

    return _each(slides, segmented, on_failure)


def _each(slides: Sequence[Path], do: Callable[[Path, str], T], on_failure: OnFailure) -> list[T]:
    """What `do` returns for each slide and the name of its output files, without slides that cannot be predicted."""
    results = []
    for slide, name in _names(slides).items():
        try:
            results.append(do(slide, name))
        except (ReadError, UsageError) as error:
            on_failure(slide, error)
    return results


def files_to_predict(paths: Sequence[Path], report: Reporter) -> list[Path]:
    """The files that are named or lie in the folders; slides that cannot be read, and files left out, are noted."""
    known = SUFFIXES | SLIDE_SUFFIXES
    files: list[Path] = []
    for path in paths:
        if path.is_dir() and not is_folder(path):
            inside = _inside(path, known, report)
            if not inside:
                raise UsageError("this folder holds no slide and no image", where=path)
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise UsageError("no such file", where=path)
    return _without_parts(list(dict.fromkeys(files)))


def _inside(folder: Path, known: set[str], report: Reporter) -> list[Path]:
    """The files of a folder with a known ending; for a slide of several files, only its main file."""
    slides = {path for path in folder.rglob("*") if is_folder(path)}
    files = [path for path in folder.rglob("*") if path.is_file() and slides.isdisjoint(path.parents)]
    names = sorted(path.relative_to(folder).as_posix() for path in {*files, *slides})
    found = slide_files(folder, names)
    for note in found.notes:
        report.note(f"{folder}: {note}")
    if packed := sorted(path for path in files if path.suffix.lower() in ARCHIVES):
        report.note(f"{folder}: {counted(len(packed), 'archive')} not read, the first: {packed[0].name}; unpack them")
    return sorted(folder / name for name in names if name not in found.parts and Path(name).suffix.lower() in known)


def _without_parts(files: list[Path]) -> list[Path]:
    """The files; where several files of one slide were named, only its main file."""
    parts = set()
    for folder in {file.parent for file in files}:
        siblings = sorted(file.name for file in files if file.parent == folder)
        parts |= {folder / name for name in slide_files(folder, siblings).parts}
    return [file for file in files if file not in parts]


def _slides_and_images(files: Sequence[Path], patch: Patch, on_failure: OnFailure) -> tuple[list[Path], list[Path]]:
    """The files that are slides, and the others; without those that cannot be opened."""
    slides: list[Path] = []
    images: list[Path] = []
    for file in files:
        try:
            is_slide = file.suffix.lower() in SLIDE_SUFFIXES and _is_large(file, patch)
            (slides if is_slide else images).append(file)
        except ReadError as error:
            on_failure(file, error)
    return slides, images


def _is_large(file: Path, patch: Patch) -> bool:
    image: Image
    with open_image([file], scale=patch.range) as image:
        return image.width * image.height >= FOUR * patch.side**2


def _names(slides: Sequence[Path]) -> dict[Path, str]:
    """Slide -> the name of its output files. Slides with the same name in several folders are numbered."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for slide, own in slide_names(slides).items():
        every = (own, *(f"{own}-{number}" for number in range(2, len(slides) + 2)))
        names[slide] = next(name for name in every if name.casefold() not in taken)
        taken.add(names[slide].casefold())
    return names

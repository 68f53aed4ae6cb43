"""Slides and pictures in, a trained head's answers out: maps over slides, a table of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpconvert.image import SLIDE_SUFFIXES, Image, open_image
from dpconvert.runtime.progress import Reporter
from dpconvert.source.slide_files import slide_files
from mtrain.errors import UsageError
from mtrain.predict.classifier import Classifier
from mtrain.predict.image_files import SUFFIXES, predict_pictures
from mtrain.predict.slide import Patch, predict_slide

__all__ = ["Classifier", "Patch", "predict"]

FOUR = 4  # a file of a slide's format that holds fewer patches is a picture


def predict(
    classifier: Classifier, paths: Sequence[Path], patch: Patch, out: Path, report: Reporter, shown: str | None = None
) -> list[dict[str, Any]]:
    """Answer each slide by a map and each picture by a row of `pictures.csv`, in `out`.

    shown: the class that maps show. Folders stand for the files in them, at any depth.

    Raises:
        UsageError: nothing to read, or no such class.
        ReadError: a file that cannot be read.
    """
    label = classifier.label(shown)
    slides, pictures = _sorted(_files(paths), patch)
    names = _names(slides)
    found = [asdict(predict_slide(classifier, slide, patch, out / names[slide], report, label)) for slide in slides]
    if pictures:
        table = out / "pictures.csv"
        counts = predict_pictures(classifier, pictures, table, report)
        found.append({"file": str(table), "pictures": len(pictures), "classes": counts})
    return found


def _files(paths: Sequence[Path]) -> list[Path]:
    known = SUFFIXES | SLIDE_SUFFIXES
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = _inside(path, known)
            if not inside:
                raise UsageError("no slide and no picture in this folder", where=path)
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError("no such file", where=path)
    return _without_parts(list(dict.fromkeys(found)))


def _inside(folder: Path, known: set[str]) -> list[Path]:
    """The files of a folder with a known ending; of a slide of several files its main one."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    parts = slide_files(folder, names).parts
    return sorted(folder / name for name in names if name not in parts and Path(name).suffix.lower() in known)


def _without_parts(files: list[Path]) -> list[Path]:
    """The files, of a slide of several that were named one by one its main one."""
    parts = set()
    for folder in {file.parent for file in files}:
        beside = sorted(file.name for file in files if file.parent == folder)
        parts |= {folder / name for name in slide_files(folder, beside).parts}
    return [file for file in files if file not in parts]


def _sorted(files: Sequence[Path], patch: Patch) -> tuple[list[Path], list[Path]]:
    slides = [file for file in files if file.suffix.lower() in SLIDE_SUFFIXES and _is_large(file, patch)]
    return slides, [file for file in files if file not in set(slides)]


def _is_large(file: Path, patch: Patch) -> bool:
    image: Image
    with open_image([file], scale=patch.range) as image:
        return image.width * image.height >= FOUR * patch.side**2


def _names(slides: Sequence[Path]) -> dict[Path, str]:
    """File -> what its answers are called; slides of one name in several folders are numbered."""
    names: dict[Path, str] = {}
    for slide in slides:
        number = sum(other.stem == slide.stem for other in names)
        names[slide] = slide.stem if not number else f"{slide.stem}-{number + 1}"
    return names

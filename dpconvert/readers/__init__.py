"""The readers of sources, one module each, found by the manifest's name ('-' becomes '_') or by the `reader` that it
names; a shape where there is none.

A reader has

    images(source) -> Iterator[SourceImage]                                    all images, in the order of their names
    read_annotations(source, source_image, image) -> Annotations | LabelMask   where the rule needs objects or regions
    fake(tree) -> None                                                         a tiny tree in the original layout

and reads nothing but what `source` lists.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from dpconvert.annotations import Annotations, LabelMask
from dpconvert.card import Target
from dpconvert.errors import ManifestError
from dpconvert.image import Image
from dpconvert.manifest.catalog import READERS as DATASETS
from dpconvert.manifest.catalog import is_packaged, known, load, plugin_folders, reader_file
from dpconvert.manifest.files import FileKind
from dpconvert.manifest.model import Manifest
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

LAYOUTS = Path(__file__).with_name("layouts")


class Reader(Protocol):
    """What a module of `datasets/` or `layouts/` offers; the last two where they make sense."""

    def images(self, source: Source) -> Iterator[SourceImage]: ...
    def read_annotations(self, source: Source, source_image: SourceImage, image: Image) -> Annotations | LabelMask: ...
    def fake(self, tree: Any) -> None: ...


def reader(manifest: Manifest) -> Reader:
    """The module that reads this source's layout: what `reader` names, else the source's own, else that of its shape.

    Of a user's own manifest, the shape comes before a module of the same name.

    Raises:
        ManifestError: there is neither a module nor a shape, or none of that name.
    """
    name = manifest.name.replace("-", "_")
    named, beside = reader_file(manifest), manifest.path.with_name(f"{name}.py")
    by_name = not manifest.shape or is_packaged(manifest)
    if named is not None:
        return _load(named)
    if by_name and (DATASETS / f"{name}.py").is_file():
        return _load(DATASETS / f"{name}.py")
    if beside.is_file() and manifest.path.parent.resolve() in plugin_folders():
        return _load(beside)
    if not manifest.shape:
        raise ManifestError(
            "nothing reads this source's layout",
            where=manifest.path,
            remedy="name a `shape`, or the `reader` of a known source with the same layout",
        )
    return _shape(manifest)


def shapes_of(target: Target) -> list[str]:
    """Return the shapes that read what samples are to be labelled with."""
    modules = {name: importlib.import_module(f"dpconvert.readers.layouts.{name}") for name in _shapes()}
    return [name for name, module in modules.items() if target in getattr(module, "TARGETS", ("class",))]


def _shapes() -> list[str]:
    return sorted(path.stem for path in LAYOUTS.glob("[a-z]*.py"))


def _shape(manifest: Manifest) -> Reader:
    if manifest.shape not in _shapes():
        raise ManifestError(
            "unknown shape", where=manifest.path, found=repr(manifest.shape), expected=f"one of {', '.join(_shapes())}"
        )
    return cast(Reader, importlib.import_module(f"dpconvert.readers.layouts.{manifest.shape}"))


def with_defaults(manifest: Manifest) -> Manifest:
    """The manifest with its shape's own file patterns for the kinds of files that it does not name.

    Raises:
        ManifestError: its [files] or [layout] are not those of its shape, or of the source whose reader it names.
    """
    if manifest.reader is not None and manifest.reader in known() and not is_packaged(manifest):
        _check_same_layout(manifest, load(known()[manifest.reader]))
    if not manifest.shape:
        return manifest
    shape = _shape(manifest)
    files: dict[str, FileKind] = getattr(shape, "FILES", {})
    kinds = [*files, *getattr(shape, "MORE_FILES", ())]  # the latter without patterns of the shape's own
    unknown = sorted(manifest.files.keys() - set(kinds))
    if unknown and files:
        near = difflib.get_close_matches(unknown[0], kinds, n=1)
        raise ManifestError(
            f"files.{unknown[0]}: the shape {manifest.shape!r} reads no such files",
            where=manifest.path,
            expected=", ".join(f"files.{kind}" for kind in kinds),
            remedy=f"did you mean 'files.{near[0]}'?" if near else None,
        )
    return manifest.model_copy(update={"files": files | manifest.files})


def _check_same_layout(manifest: Manifest, example: Manifest) -> None:
    """Check that a manifest states what a reader looks up in that of its own source."""
    kinds, keys = example.files.keys(), () if example.shape else example.layout.keys()
    absent = [f"files.{kind}" for kind in kinds - manifest.files.keys()] if not manifest.shape else []
    absent += [f"layout.{key}" for key in keys if key not in manifest.layout]
    unknown = [f"files.{kind}" for kind in manifest.files.keys() - kinds]
    if absent or unknown:
        raise ManifestError(
            f"{min(absent or unknown)}: the reader {example.name!r} {'needs it' if absent else 'reads no such files'}",
            where=manifest.path,
            expected=", ".join([*(f"files.{kind}" for kind in kinds), *(f"layout.{key}" for key in keys)]),
            remedy=f"compare with {example.path}",
        )
    if len(manifest.classes) < len(example.classes) and not example.shape:
        raise ManifestError(
            f"classes: the reader {example.name!r} reads those of {example.path.name}, in their order",
            where=manifest.path,
            expected=f"{len(example.classes)}",
            found=f"{len(manifest.classes)}",
        )


def described(manifest: Manifest) -> str:
    """Return what reads a manifest's files, as a message names it."""
    if manifest.reader is not None:
        return f"the reader {manifest.reader!r}"
    return f"the shape {manifest.shape!r}" if manifest.shape else f"the module of {manifest.name!r}"


def _load(path: Path) -> Reader:
    if path.parent == DATASETS:
        return cast(Reader, importlib.import_module(f"dpconvert.readers.datasets.{path.stem}"))
    name = f"dpconvert_plugin_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            if not callable(getattr(module, "images", None)):
                raise ManifestError(
                    "the module of this source has no function `images`",
                    where=path,
                    expected="def images(source), which yields a SourceImage for each image",
                    remedy="define it; `dpconvert.plugin` says what it may import",
                )
        except BaseException:
            del sys.modules[name]  # a part of a module is none
            raise
    return cast(Reader, sys.modules[name])

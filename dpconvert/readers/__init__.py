"""The readers of sources, one module each, found by the manifest's name ('-' becomes '_'); a shape where there is none.

A reader has

    images(source) -> Iterator[Image]                      what is there, in name order
    read_annotations(source, image, image) -> Annotations | LabelMask   where the rule needs objects or regions
    fake(tree) -> None                                         a tiny tree in the original layout

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
from dpconvert.manifest.catalog import manifest_folder, plugin_folders
from dpconvert.manifest.files import FileKind
from dpconvert.manifest.model import Manifest
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

DATASETS, LAYOUTS = Path(__file__).with_name("datasets"), Path(__file__).with_name("layouts")


class Reader(Protocol):
    """What a module of `datasets/` or `layouts/` offers; the last two where they make sense."""

    def images(self, source: Source) -> Iterator[SourceImage]: ...
    def read_annotations(self, source: Source, source_image: SourceImage, image: Image) -> Annotations | LabelMask: ...
    def fake(self, tree: Any) -> None: ...


def reader(manifest: Manifest) -> Reader:
    """The module that reads this source's layout: of the source's name, of a user's own manifest first of its shape.

    Raises:
        ManifestError: there is neither a module of that name nor a shape.
    """
    name = manifest.name.replace("-", "_")
    beside = manifest.path.with_name(f"{name}.py")
    known = not manifest.shape or manifest.path.parent == manifest_folder() / "datasets"
    if known and (DATASETS / f"{name}.py").is_file():
        return cast(Reader, importlib.import_module(f"dpconvert.readers.datasets.{name}"))
    if beside.is_file() and manifest.path.parent.resolve() in plugin_folders():
        return _load(beside)
    if not manifest.shape:
        raise ManifestError("nothing reads this source's layout", where=manifest.path, remedy="name a `shape`")
    return _shape(manifest)


def shapes_of(target: Target) -> list[str]:
    """Return the shapes that read what samples are to be labelled with."""
    known = sorted(path.stem for path in LAYOUTS.glob("[a-z]*.py"))
    modules = {name: importlib.import_module(f"dpconvert.readers.layouts.{name}") for name in known}
    return [name for name, module in modules.items() if target in getattr(module, "TARGETS", ("class",))]


def _shape(manifest: Manifest) -> Reader:
    known = sorted(path.stem for path in LAYOUTS.glob("[a-z]*.py"))
    if manifest.shape not in known:
        raise ManifestError(
            "unknown shape", where=manifest.path, found=repr(manifest.shape), expected=f"one of {', '.join(known)}"
        )
    return cast(Reader, importlib.import_module(f"dpconvert.readers.layouts.{manifest.shape}"))


def with_defaults(manifest: Manifest) -> Manifest:
    """The manifest with its shape's own file patterns for the kinds of files that it does not name."""
    if not manifest.shape:
        return manifest
    shape = _shape(manifest)
    files: dict[str, FileKind] = getattr(shape, "FILES", {})
    kinds = [*files, *getattr(shape, "MORE_FILES", ())]  # the latter without patterns of the shape's own
    unknown = sorted(manifest.files.keys() - set(kinds))
    if unknown and files:
        near = difflib.get_close_matches(unknown[0], kinds, n=1)
        raise ManifestError(
            f"files.{unknown[0]}: the shape {manifest.shape!r} reads no such files", where=manifest.path,
            expected=", ".join(f"files.{kind}" for kind in kinds),
            remedy=f"did you mean 'files.{near[0]}'?" if near else None,
        )  # fmt: skip
    return manifest.model_copy(update={"files": files | manifest.files})


def _load(path: Path) -> Reader:
    name = f"dpconvert_plugin_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return cast(Reader, sys.modules[name])

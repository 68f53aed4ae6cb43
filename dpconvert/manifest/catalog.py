"""Manifests by name or path: those of the package, those of the user's own folders, and single files."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from pathlib import Path

from pydantic import ValidationError

from dpconvert import names
from dpconvert.errors import ManifestError, UsageError
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.toml_text import read_toml
from dpconvert.validation_errors import first_fault

READERS = Path(__file__).parents[1] / "readers" / "datasets"
PACKAGED = Path(__file__).parents[1] / "manifests"
CHECKOUT = Path(__file__).parents[2] / "manifests"
LISTING = "`dpconvert list` lists the sources"


def manifest_folder() -> Path:
    """Return the folder of the manifests: inside the installed package, or beside it in a checkout."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def plugin_folders() -> list[Path]:
    """Return the absolute paths of the user's folders with `<name>.toml` and `<name>.py`, from DPCONVERT_PATH."""
    return [Path(p).expanduser().resolve() for p in os.environ.get("DPCONVERT_PATH", "").split(os.pathsep) if p]


def known() -> dict[str, Path]:
    """Return every known source in name order: name -> manifest."""
    folders = [manifest_folder() / "datasets", *plugin_folders()]
    found = {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}
    return dict(sorted(found.items()))


def known_readers() -> dict[str, Path]:
    """Return every module that reads a dataset's layout in name order: its name, with '-' for '_' -> its file."""
    folders = [READERS, *plugin_folders()]
    found = {path.stem.replace("_", "-"): path for folder in folders for path in sorted(folder.glob("[a-z]*.py"))}
    return dict(sorted(found.items()))


def find(name: str) -> Manifest:
    """Find the manifest of a source, by its name, its task's (without case, blanks, '-', '_'), or a TOML file's path.

    Raises:
        UsageError: the source is not known; the message gives the nearest names.
        ManifestError: the file is not a valid manifest.
    """
    if name.endswith(".toml"):
        return load(Path(name))
    sources = known()
    plain = {names.plain(source): source for source in sources}
    if names.plain(name) not in plain:
        plain |= {names.plain(load(path).task): source for source, path in sources.items()}
    found = plain.get(names.plain(name))
    if found is None:
        check_not_near(name, "source")
        if absent := [folder for folder in plugin_folders() if not folder.is_dir()]:
            raise UsageError(
                f"no source named {name!r}",
                found=f"no folder {absent[0]}, which DPCONVERT_PATH names",
                remedy="correct the variable; `dpconvert list` names the known sources",
            )
        found = names.closest(name, sources, "source", LISTING)
    return load(sources[found])


def check_not_near(name: str, what: str) -> None:
    """Check that a name which nothing has is not that of a manifest here, but for a slip.

    Raises:
        UsageError: it is nearly the name of a TOML file, or names a folder or another file.
    """
    if near := _near(Path(name)):
        raise UsageError(f"no {what} named {name!r}", remedy=f"did you mean {near}?")
    if Path(name).is_dir():
        folder = shlex.quote(name)
        raise UsageError(
            f"{name!r} is a folder; expected a {what}, or a manifest that describes the files in a folder",
            remedy=f"`dpconvert init {folder}` drafts one; `dpconvert list` names the known sources",
        )
    if Path(name).is_file():
        raise UsageError(
            f"{name!r} is a file; expected a {what}, or a manifest", remedy="the name of a manifest ends in .toml"
        )


def _near(path: Path) -> str:
    """Return the TOML files beside a path whose names are nearly its own, as a user types them."""
    try:
        beside = {file.name: file for file in path.parent.glob("*.toml") if file.is_file()}
    except OSError:
        beside = {}
    same = [name for name in beside if names.plain(Path(name).stem) == names.plain(path.stem)]
    near = same or difflib.get_close_matches(path.name, beside, n=3, cutoff=0.75)
    return " or ".join(shlex.quote(str(beside[name])) for name in near)


def typed(manifest: Manifest) -> str:
    """Return what a user types for a manifest: the name of a known source, else the path of its file."""
    path = manifest.path
    if path == Path() or known().get(path.stem, Path()).absolute() == path:
        return manifest.name
    inside = path.is_relative_to(Path.cwd())
    return shlex.quote(str(path.relative_to(Path.cwd()) if inside else path))


def is_packaged(manifest: Manifest) -> bool:
    """Whether a manifest is one of the known datasets of the package, which users do not edit."""
    return manifest.path.is_relative_to(manifest_folder() / "datasets")


def load(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        ManifestError: the file is absent, not TOML, or not a valid manifest; the message states the first problem.
    """
    try:
        data = read_toml(path)
    except OSError as error:
        near = "" if path.exists() else _near(path)
        remedy = f"did you mean {near}?" if near else None
        raise ManifestError(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from None
    except ValueError as error:
        raise ManifestError(f"not TOML: {error}", where=path) from None
    data.setdefault("name", _as_name(path.stem))
    try:
        manifest = Manifest.model_validate(data | {"path": path.absolute()})
    except ValidationError as error:
        fault = first_fault(error, Manifest)
        raise ManifestError(str(fault), where=path, found=fault.found) from None
    reader_file(manifest)
    return manifest


def reader_file(manifest: Manifest) -> Path | None:
    """Return the file of the module that the manifest's `reader` names; None if it names none.

    Raises:
        ManifestError: there is no reader of that name; the message lists those that exist.
    """
    if manifest.reader is None:
        return None
    own = READERS / f"{manifest.reader.replace('-', '_')}.py"
    if is_packaged(manifest) and own.is_file():
        return own
    readers = known_readers()
    if manifest.reader not in readers:
        near = difflib.get_close_matches(manifest.reader, readers, n=1)
        raise ManifestError(
            "unknown reader",
            where=manifest.path,
            found=repr(manifest.reader),
            expected=f"one of {', '.join(readers)}",
            remedy=f"did you mean {near[0]!r}?" if near else None,
        )
    return readers[manifest.reader]


def _as_name(stem: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", stem.lower()).strip("-") or "source"

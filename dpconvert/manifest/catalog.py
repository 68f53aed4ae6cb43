"""Manifests by name or path: those of the package, those of the user's own folders, and single files."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from pathlib import Path

from pydantic import ValidationError

from dpconvert import names
from dpconvert.errors import ManifestError
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.toml_text import read_toml
from dpconvert.validation import first_fault

READERS = Path(__file__).parents[1] / "readers" / "datasets"
PACKAGED = Path(__file__).parents[1] / "manifests"
CHECKOUT = Path(__file__).parents[2] / "manifests"


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
    """Find the manifest of a source, by its name, its task's (ignoring case, '-' and '_'), or a TOML file's path.

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
    found = plain.get(names.plain(name)) or names.closest(name, sources, "source")
    return load(sources[found])


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
        raise ManifestError(f"cannot be read: {error.strerror}", where=path) from None
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
            "unknown reader", where=manifest.path, found=repr(manifest.reader),
            expected=f"one of {', '.join(readers)}",
            remedy=f"did you mean {near[0]!r}?" if near else None,
        )  # fmt: skip
    return readers[manifest.reader]


def _as_name(stem: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", stem.lower()).strip("-") or "source"

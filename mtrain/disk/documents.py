"""JSON documents that carry a digest of their content: written whole, and read only as they were written.

The digest is the entry `sha256`: that of all other entries as JSON with sorted keys. A document without one is of an
earlier version, which wrote none: it is read, and named by `unchecked`, so that a program can say so at its end.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dpconvert.plural import counted
from mtrain.disk.atomic import write_json
from mtrain.errors import RunError

DIGEST = "sha256"
ABOUT = "about"  # entry of the header of our safetensors files
CHANGED = "changed since it was written"
_unchecked: dict[Path, None] = {}


def write_document(path: Path, content: Mapping[str, Any]) -> None:
    """Put `content` with its digest into `path` atomically.

    Raises:
        RunError: the disk is full, read-only, or the like.
    """
    plain = json.loads(json.dumps(content))  # as it will be read: keys are strings, tuples are lists
    write_json(path, {**plain, DIGEST: content_digest(plain)})


def read_document(path: Path, remedy: str) -> dict[str, Any]:
    """The content of `path`, without its digest. remedy: what to do when it is damaged.

    Raises:
        FileNotFoundError: there is none.
        RunError: not JSON, not an object, or changed since it was written.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot be read: {error}", where=path, remedy=remedy) from None
    if not isinstance(content, dict):
        raise RunError("cannot be read: not a JSON object", where=path, remedy=remedy)
    stated = content.pop(DIGEST, None)
    if stated is None:
        note_unchecked(path)
    elif stated != content_digest(content):
        raise RunError(CHANGED, where=path, remedy=remedy)
    return content


def known_document(path: Path, note: Callable[[str], object] = lambda _text: None) -> dict[str, Any] | None:
    """The content of `path`, or None where it is to be made: there is none, or a damaged one, which `note` reports."""
    try:
        return read_document(path, "it is made again")
    except FileNotFoundError:
        return None
    except RunError as error:
        note(str(error))
        return None


def content_digest(content: Mapping[str, Any]) -> str:
    """sha256 of a JSON object; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def short_digest(text: str) -> str:
    """24 hexadecimal digits that name a text, in names of files: of what decides a result, as JSON."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def without_nan(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def tensor_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What the metadata of a safetensors file of ours state as `about`; empty if they state nothing."""
    try:
        about = json.loads((metadata or {})[ABOUT])
    except (KeyError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def note_unchecked(path: Path) -> None:
    """Remember that this file was read and carries no digest."""
    _unchecked[path] = None


def unchecked() -> list[str]:
    """What to say of the files without a digest that were read since the last time."""
    paths = list(map(str, _unchecked))
    _unchecked.clear()
    if not paths:
        return []
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    files, named = counted(len(paths), "file"), ", ".join(paths[:3])
    return [f"{files} of an earlier version without a digest, which cannot be checked: {named}{more}"]

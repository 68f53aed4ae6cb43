"""Self-contained HTML pages: their head, whose policy forbids loading anything, and writing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from dpconvert.errors import OutputError
from dpconvert.runtime.atomic import replaced

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def head(title: str, style: str) -> Iterator[str]:
    """The HTML up to the start of the body."""
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>\n{style}</style></head><body>"


def write(lines: Iterable[str], path: Path, option: str) -> None:
    """Write the page to `path` atomically. `option` is the name of the option for the path.

    Raises:
        OutputError: the page cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot be created: {error.strerror}", where=path.parent, remedy=f"choose another {option}"
        ) from None
    with replaced(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)

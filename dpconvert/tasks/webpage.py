"""Pages that load nothing from elsewhere: the head, whose policy forbids it, and the writing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from dpconvert.errors import OutputError
from dpconvert.shards.tar import replaced

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def head(title: str, style: str) -> Iterator[str]:
    """Everything up to the body's beginning."""
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>\n{style}</style></head><body>"


def write(lines: Iterable[str], path: Path, option: str) -> None:
    """The page as `path`, whole or not at all; `option` is the one that names it.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot be made: {error.strerror}", where=path.parent, remedy=f"choose another {option}"
        ) from None
    with replaced(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)

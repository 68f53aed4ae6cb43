"""Read TOML files, up to the size of hand-written ones."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dpconvert import names

MOST = 1 << 17  # characters; the time of tomllib grows with the square of the parts of a key


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, in Unicode normalization form C.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not TOML, is nested too deeply, or has more than MOST characters.
    """
    with path.open(encoding="utf-8") as file:
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise ValueError(f"more than {MOST} characters")
    try:
        return tomllib.loads(names.nfc(text))
    except RecursionError as error:
        raise ValueError(str(error)) from None

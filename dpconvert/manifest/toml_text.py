"""TOML files of a size that people write."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dpconvert import names

MOST = 1 << 17  # characters; tomllib takes the square of the parts of a key


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says, in Unicode normalization form C.

    Raises:
        OSError: it cannot be read.
        ValueError: not TOML, nested too deeply, or of more than MOST characters.
    """
    with path.open(encoding="utf-8") as file:
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise ValueError(f"more than {MOST} characters")
    try:
        return tomllib.loads(names.nfc(text))
    except RecursionError as error:
        raise ValueError(str(error)) from None

"""libtiff, which Pillow decodes TIFFs with, writes its own lines to stderr; here it says nothing, and Pillow raises.

`quiet` is for those who open TIFFs with Pillow; it holds for the whole process.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

from PIL import _imaging


@cache
def quiet() -> None:
    """Take libtiff's handlers of errors and warnings away, where it can be reached."""
    with suppress(OSError, AttributeError):  # another build of Pillow: its lines stay
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)

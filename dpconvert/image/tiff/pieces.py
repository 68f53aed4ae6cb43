"""Pieces of a file at arbitrary offsets."""

from __future__ import annotations

import io
from pathlib import Path

from dpconvert.errors import ReadError
from dpconvert.image.ome.ome_metadata import Opened


class Pieces:
    """A file that is read at arbitrary offsets; truncation is reported."""

    def __init__(self, file: Opened) -> None:
        self.path = file if isinstance(file, Path) else getattr(file, "name", "archive member")
        self._file = file.open("rb", buffering=0) if isinstance(file, Path) else io.BytesIO(file.getvalue())
        self._size = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Return `count` bytes at `offset`.

        Raises:
            ReadError: the file ends before them, or cannot be read.
        """
        try:
            self._file.seek(offset)
            data = self._file.read(count) if offset + count <= self._size else b""  # a count may be terabytes
        except (OSError, ValueError, OverflowError) as error:
            raise ReadError(f"{what} cannot be read: {error}", where=self.path) from None
        if len(data) != count:
            raise ReadError(
                f"cut off: {what} ends at byte {offset + count}",
                where=self.path,
                found=f"a file of {self._size} bytes",
                remedy="fetch it again",
            )
        return data

    def close(self) -> None:
        """Release the file."""
        self._file.close()

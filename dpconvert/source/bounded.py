"""Protection against decompression bombs: wraps the stream of an archive, and limits what is read from it."""

from __future__ import annotations

import tarfile
from typing import IO

AT_ONCE = 1 << 24  # bytes; headers of tar members are read in one piece, whatever size they state
DAMAGED = (tarfile.TarError, ValueError, OverflowError, EOFError)  # raised by tarfile for damaged archives
FREE, RATIO = 1 << 30, 200  # bytes that anything may unpack to; beyond, times what is stored


class Bounded:
    """A file that tar archives are read from.

    Raises tarfile.ReadError if one read asks for more than AT_ONCE bytes, or all reads for more than `most`.
    """

    def __init__(self, file: IO[bytes], most: int | None = None) -> None:
        self.file, self.most = file, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= AT_ONCE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        if self.most is not None and self.file.tell() + size > self.most + AT_ONCE:
            raise tarfile.ReadError(f"it unpacks to more than {self.most} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if self.most is not None and offset > self.most + AT_ONCE:
            raise tarfile.ReadError(f"it unpacks to more than {self.most} bytes")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def most_unpacked(stored: int) -> int:
    """Return the maximum number of bytes that `stored` bytes may unpack to."""
    return max(FREE, RATIO * stored)

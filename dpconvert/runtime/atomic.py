"""Files that are complete or absent: each gets its name when it is complete and on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from dpconvert.errors import OutputError


@contextmanager
def replaced(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file to write. It gets the name `path` if the block succeeds, and is removed if it fails.

    durable: wait until the file is on disk. Otherwise a power failure may leave an empty or truncated file.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    # a unique name: a worker that is believed dead may still be writing to its own
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses this even if there is no such file
            part.unlink()
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            remedy="make room or choose another --out, and run the same command again: finished files are kept",
        ) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise

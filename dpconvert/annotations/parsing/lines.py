"""The lines of a text that comes from elsewhere, one after another: neither all of them nor an endless one is held."""

from __future__ import annotations

import io
from collections.abc import Iterator

from dpconvert.errors import ReadError

MOST = 1_000_000  # an object of ours that a line becomes takes about 600 bytes
LONGEST = 1 << 24  # characters; an outline of 10^6 vertices


def lines(data: bytes, name: str) -> Iterator[str]:
    """The lines with their ends, UTF-8 without its mark; bytes that are none are replaced.

    Raises:
        ReadError: more of them than can be held, or a longer one.
    """
    if (found := max(data.count(b"\n"), data.count(b"\r"))) > MOST:
        raise ReadError(
            "too many lines", where=name, expected=f"at most {MOST}", found=found, remedy="divide it into several files"
        )
    with io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "replace", newline="") as text:
        while line := text.readline(LONGEST + 1):
            if len(line) > LONGEST:
                raise ReadError(f"a line of more than {LONGEST >> 20} MiB", where=name)
            yield line

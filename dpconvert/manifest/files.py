"""The files of a source: their names, and where to get them."""

from __future__ import annotations

import re

from pydantic import field_validator

from dpconvert.card import Model


def regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class FileKind(Model):
    """One kind of file of a source. `pattern` is searched in names relative to the source folder ('/' as separator)."""

    pattern: str
    """Regular expression, searched in the names of the files; the layout reads its named groups."""
    what: str = "files"
    """Description of these files, for messages; `check` calls files without one by the name of their table."""
    example: str = ""
    """Example of the name of such a file, for messages."""
    expected: int | None = None
    """Number of such files in the whole release; a smaller number is reported."""
    optional: bool = False
    """Whether a source may lack these files."""

    _compiles = field_validator("pattern")(regular_expression)


class Archive(Model):
    """A file to download."""

    name: str
    """File name of the download; with `numbers`, `{n}` stands for the number."""
    url: str = ""
    """Address of the download."""
    size: int | None = None
    """Size in bytes."""
    digest: str = ""
    """`sha256:...` or `md5:...`; empty if none was published."""
    numbers: list[tuple[int, int]] = []
    """Ranges of first and last number, if the entry stands for one file per number."""

    def files(self) -> list[Archive]:
        """The files that the entry stands for."""
        ranges = (range(first, last + 1) for first, last in self.numbers)
        named = [Archive(name=self.name.format(n=n), url=self.url.format(n=n)) for numbers in ranges for n in numbers]
        return named if self.numbers else [self]


class Obtain(Model):
    """The origin of the source, for `show`."""

    url: str = ""
    """Web page of the dataset."""
    text: str = ""
    """How to get the files, in one sentence."""
    archives: list[Archive] = []
    """Files that `dpconvert fetch` downloads."""

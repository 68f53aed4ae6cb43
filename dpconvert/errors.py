"""What a user can get wrong, as exceptions that say what to do. Nothing else may reach the user as an error.

UserError
├── UsageError      a name, option or value that does not exist
├── ManifestError   a manifest that does not say what it must
├── SourceError     files of a source that are missing or not laid out as expected
├── ReadError       one image, annotation or archive that cannot be read
├── FetchError      a download that failed, or that gave something else
├── OutputError     the output folder is in use, holds something else, or cannot be written
└── ShardError      a shard, index or task.json that does not match what was written

Only the command line catches them; our own bugs are ordinary exceptions and do raise.
"""

from __future__ import annotations

import os
import re

LONGEST = 2000  # characters of a part of an error; what files hold may be of any length
USER = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")
QUERY = re.compile(r"(://[^\s?'\"<>]*)\?[^\s'\"<>]*|\?[\w.%~-]+=[^\s'\"<>]*")  # also where the host is left out
ADDRESS = re.compile(r" ?'?<[^<>]* at 0x[0-9a-fA-F]+>'?")


class UserError(Exception):
    """One line for a person: what went wrong, where, what was expected and found, and what to do about it."""

    def __init__(
        self,
        what: str,
        *,
        where: str | os.PathLike[str] | None = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else os.fspath(where)
        self.expected, self.found, self.remedy = expected, found, remedy
        super().__init__(what)

    def __str__(self) -> str:
        what = _shown(self.what)
        parts = [what if self.where is None else f"{_shown(self.where)}: {what}"]
        if self.expected is not None:
            parts.append(f"expected {_shown(self.expected)}")
        if self.found is not None:
            parts.append(f"found {_shown(self.found)}")
        if self.remedy is not None:
            parts.append(_shown(self.remedy))
        return printable("; ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:  # worker processes send errors home by pickle; keywords must survive
        return _rebuild, (type(self), self.what, self.where, self.expected, self.found, self.remedy)


class UsageError(UserError):
    """A name, option or value that does not exist."""


class ManifestError(UserError):
    """A manifest that does not say what it must."""


class SourceError(UserError):
    """Files of a source that are missing or not laid out as expected."""


class ReadError(UserError):
    """One image, annotation or archive that cannot be read."""


class FetchError(UserError):
    """A download that failed, or that gave something else."""


class OutputError(UserError):
    """The output folder is in use, holds something else, or cannot be written."""


class ShardError(UserError):
    """A shard, index or task.json that does not match what was written."""


def cut(text: str, most: int = LONGEST) -> str:
    """The beginning and the end of a text that is too long to be read."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def without_secrets(text: str) -> str:
    """Text whose addresses name no user and show no query: these may hold passwords, tokens and signatures."""
    return QUERY.sub(r"\1?***", USER.sub("", text))


def without_addresses(text: str) -> str:
    """Text without the addresses of objects in memory, which libraries put into their messages."""
    return ADDRESS.sub("", text)


def printable(text: str) -> str:
    """Text on one line without control characters: file names may hold newlines and terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _shown(part: object) -> str:
    return without_addresses(without_secrets(cut(str(part))))


def _rebuild(
    kind: type[UserError], what: str, where: str | None, expected: object, found: object, remedy: str | None
) -> UserError:
    return kind(what, where=where, expected=expected, found=found, remedy=remedy)

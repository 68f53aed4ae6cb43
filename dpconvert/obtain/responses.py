"""What a server's response says about a file: its version, its range, and when to try again."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests

RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Version:
    """The version of a file in a response, as far as the server states it.

    condition: a strong ETag or else a date, with which the same version can be requested. tag: any ETag or date.
    total: the length of the file.
    """

    condition: str = ""
    tag: str = ""
    total: int | None = None

    @classmethod
    def of(cls, answer: requests.Response) -> Version:
        etag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        strong = etag if not etag.startswith("W/") else ""
        return cls(strong or date, etag or date, total_size(answer))

    @classmethod
    def read(cls, tag: Path) -> Version:
        """The version noted beside a part; an empty one if there is no readable note."""
        try:
            return cls(**json.loads(tag.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, tag: Path) -> None:
        tag.write_text(json.dumps(asdict(self)))

    def can_resume_with(self, other: Version) -> bool:
        """Whether a part of this version can be resumed with bytes of the other."""
        return self.tag == other.tag and (None in (self.total, other.total) or self.total == other.total)


def as_sent(answer: requests.Response, name: str) -> None:
    """Leave the body as it is sent where servers call a file that is compressed itself compressed for the way."""
    if name.lower().endswith((".gz", ".tgz")) and _packing(answer) in ("gzip", "x-gzip"):
        answer.headers.pop("Content-Encoding")
        answer.raw.headers.pop("Content-Encoding", None)


def is_packed(answer: requests.Response) -> bool:
    """Whether the body is compressed for the way, so that lengths and ranges are not those of the file."""
    return _packing(answer) not in ("", "identity")


def _packing(answer: requests.Response) -> str:
    return answer.headers.get("Content-Encoding", "").strip().lower()


def is_page(answer: requests.Response, start: bytes, name: str) -> bool:
    """Whether the body, which has this start, is a web page in place of the file, as log-ins and proxies send."""
    if name.lower().endswith((".html", ".htm", ".xhtml")):
        return False
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    called = answer.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml"))
    return head.startswith((b"<!doctype html", b"<html")) or (called and head.startswith(b"<"))


def first_byte(answer: requests.Response) -> int:
    """The first byte of the body: 0 for a whole file, -1 for a part without a valid range."""
    if answer.status_code != 206:
        return 0
    match = RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else -1


def total_size(answer: requests.Response) -> int | None:
    """The length of the whole file, if it is stated."""
    length = "" if is_packed(answer) else answer.headers.get("Content-Length", "")
    if answer.status_code != 206:
        return int(length) if length.isdecimal() else None
    match = RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return int(match[3]) if match and match[3] != "*" else None


class BusyError(Exception):
    """A temporary error of a server, and the seconds after which it may be retried."""

    def __init__(self, answer: requests.Response, reason: str = "") -> None:
        retry_after = answer.headers.get("Retry-After", "").strip()
        self.wait = float(retry_after) if retry_after.isdecimal() else 0.0
        with suppress(ValueError, TypeError):
            until = parsedate_to_datetime(retry_after)
            self.wait = max((until - datetime.now(until.tzinfo)).total_seconds(), 0.0)
        super().__init__(reason or f"the server is busy (HTTP {answer.status_code})")


def ends_at(answer: requests.Response, had: int) -> bool:
    """Whether the server responds to a request for the bytes after the first `had` that there are none."""
    return answer.headers.get("Content-Range", "") == f"bytes */{had}"


def reason_of(error: requests.RequestException) -> str:
    """Why a request got no response, in a few words."""
    if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
        return "the server does not respond"
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "the server sends what cannot be unpacked"
    return "the connection broke" if "IncompleteRead" in str(error) else "no connection"

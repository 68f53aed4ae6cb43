"""A URL in, a whole file out: gone on with where it was cut, checked, and called by its name only then.

While it comes the file is called <name>.part, and <name>.tag holds what the server says of the version that it is of.
"""

from __future__ import annotations

import re
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pooch
import requests

from dpconvert.errors import FetchError, OutputError
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter

CHUNK = 1 << 14  # what a cut may lose
AGAIN = {408, 425, 429, 500, 502, 503, 504}  # a server's answers that pass
KILO = 1000
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Patience:
    """Seconds until a connection counts as failed or as cut, tries without a byte gained, seconds between them."""

    connect: float = 15.0
    silence: float = 60.0
    tries: int = 5
    wait: float = 2.0


PATIENT = Patience()


@dataclass(frozen=True)
class Remote:
    """A file of a server. digest: 'sha256:...' or 'md5:...', '' where none was published; remedy: where else to ask."""

    url: str
    digest: str = ""
    auth: requests.auth.AuthBase | None = None
    remedy: str = ""


@dataclass
class Downloader:
    """Fetches files over one connection pool; not to be shared between threads. Once `stop` is set it gives up."""

    report: Reporter
    session: requests.Session
    patience: Patience = PATIENT
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch(self, remote: Remote, path: Path) -> bool:
        """Bring the file to `path`; False if it was there already.

        Raises:
            FetchError: the server does not have it or refuses, the connection fails again and again, or what came is
                not what was published.
            OutputError: it cannot be written.
        """
        if path.is_file():
            self._check(remote, path, path, remedy="remove it and fetch again")
            return False
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._whole(remote, part)
            self._check(remote, part, path)
            part.replace(path)
        except requests.RequestException as error:  # an OSError too, but none of ours
            raise FetchError(f"not a usable address: {error}", where=remote.url) from None
        except OSError as error:
            remedy = "make room and run the same command again: what is here is kept"
            raise OutputError(f"cannot be written: {error.strerror}", where=path, remedy=remedy) from None
        _tag(part).unlink(missing_ok=True)
        return True

    def _whole(self, remote: Remote, part: Path) -> None:
        """Ask until nothing is missing; tries count from the last byte that was gained."""
        tries, most = 0, _size(part)
        while not self.stop.is_set():
            try:
                if self._more(remote, part):
                    return
                reason = "the server is busy, or sends less than it announced"
            except requests.exceptions.SSLError as error:
                raise FetchError(
                    f"no secure connection: {error}", where=remote.url, remedy=remote.remedy or None
                ) from None
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                reason = _words(error)
            tries = 0 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            if tries >= self.patience.tries:
                raise FetchError(
                    f"{reason}, {tries} times without a byte gained", where=remote.url,
                    remedy="run the same command again: what is here is kept",
                )  # fmt: skip
            self.stop.wait(min(self.patience.wait * 2**tries, LONGEST_WAIT))
        raise _stopped(remote.url)

    def _more(self, remote: Remote, part: Path) -> bool:
        """One answer of the server, added to the part; True when the file is whole."""
        had, tag = _size(part), _tag(part)
        headers = {"Accept-Encoding": "identity"}
        if had:
            headers["Range"] = f"bytes={had}-"
            if tag.is_file() and (version := tag.read_text()):
                headers["If-Range"] = version
        with self.session.get(
            remote.url, headers=headers, auth=remote.auth, stream=True,
            timeout=(self.patience.connect, self.patience.silence),
        ) as answer:  # fmt: skip
            if answer.status_code == 416:
                return _ends_at(answer, had) or _start_again(part)
            _refuse(answer, remote)
            if answer.status_code in AGAIN:
                return False
            start = _start(answer, had)
            if start not in (0, had):
                return _start_again(part)
            tag.write_text(_version(answer))
            return self._append(answer, part, start)

    def _append(self, answer: requests.Response, part: Path, start: int) -> bool:
        """Add the body from the byte `start`; True when as much came as was announced."""
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        name = part.name.removesuffix(".part")
        done = start
        with (
            part.open("r+b" if start else "wb") as file,
            self.report.bar(name, (total or start) // KILO, done=start // KILO, unit="kB") as advance,
        ):
            file.seek(start)
            for chunk in answer.iter_content(CHUNK):
                if self.stop.is_set():
                    raise _stopped(answer.url)
                file.write(chunk)
                advance((done + len(chunk)) // KILO - done // KILO)
                done += len(chunk)
        return total is None or done >= total

    def _check(self, remote: Remote, path: Path, named: Path, remedy: str = "fetch it again") -> None:
        """What does not have the published digest is removed, unless somebody else put it there."""
        if not remote.digest:
            return
        kind, _, digest = remote.digest.partition(":")
        found = pooch.file_hash(str(path), alg=kind)
        if found.lower() != digest.lower():
            if path != named:
                path.unlink()
                _tag(path).unlink(missing_ok=True)
            raise FetchError(
                "not the published file", where=named, expected=remote.digest, found=f"{kind}:{found}", remedy=remedy
            )


def locked(folder: Path) -> AbstractContextManager[None]:
    """Nobody else fetches into this folder meanwhile."""
    return locks.locked(folder, "somebody else fetches into it", "wait, or choose another --to", "choose another --to")


def _stopped(url: str) -> FetchError:
    return FetchError("stopped", where=url, remedy="run it again: what is here is kept")


def _refuse(answer: requests.Response, remote: Remote) -> None:
    """Answers that will not change by asking again."""
    code = answer.status_code
    if code in (200, 206) or code in AGAIN:
        return
    what = {
        401: "the server wants to know who asks",
        403: "the server refuses",
        404: "not there",
        410: "not there any more",
    }
    raise FetchError(f"{what.get(code, 'the server refuses')} ({code})", where=remote.url, remedy=remote.remedy or None)


def _start(answer: requests.Response, had: int) -> int:
    """The byte that the body begins with: 0 when the server sends the whole file, asked or not."""
    if answer.status_code != 206:
        return 0
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else had


def _ends_at(answer: requests.Response, had: int) -> bool:
    """Whether the server, asked for what comes after `had` bytes, says that this is all."""
    return answer.headers.get("Content-Range", "") == f"bytes */{had}"


def _start_again(part: Path) -> bool:
    part.unlink(missing_ok=True)
    return False


def _version(answer: requests.Response) -> str:
    """What tells versions of the file apart: a strong ETag, else its date; '' for none."""
    etag: str = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else str(answer.headers.get("Last-Modified", ""))


def _tag(part: Path) -> Path:
    return part.with_suffix(".tag")


def _size(part: Path) -> int:
    with suppress(OSError):
        return part.stat().st_size
    return 0


def _words(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
        return "the server says nothing"
    return "the connection was cut" if "IncompleteRead" in str(error) else "no connection"

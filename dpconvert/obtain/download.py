"""A URL in, a whole file out: gone on with where it was cut, checked, and called by its name only then.

While it comes the file is called <name>.part, and <name>.tag holds what the server says of the version that it is of. A
part goes on only where the answer is of the same version and length and begins where the part ends; else it is begun
anew.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
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
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
MOST_PATIENT = 600.0  # seconds that a server may ask to wait


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
    """A file of a server.

    digest: 'sha256:...' or 'md5:...', '' where none was published. size: bytes, where they were. remedy: where else to
    ask.
    """

    url: str
    digest: str = ""
    size: int | None = None
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
            _check_total(remote, _size(part), part)
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
            pause = 0.0
            try:
                if self._more(remote, part):
                    return
                reason = "the server is busy, or sends less than it announced"
            except _BusyError as busy:
                reason, pause = f"the server is busy ({busy.status})", busy.wait
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
            if pause > MOST_PATIENT:
                raise FetchError(
                    f"the server asks to wait {pause:.0f} s", where=remote.url,
                    remedy="run the same command again then: what is here is kept",
                )  # fmt: skip
            self.stop.wait(max(pause, min(self.patience.wait * 2**tries, LONGEST_WAIT)))
        raise _stopped(remote.url)

    def _more(self, remote: Remote, part: Path) -> bool:
        """One answer of the server, added to the part; True when the file is whole."""
        had, tag = _size(part), _tag(part)
        if remote.size is not None and had > remote.size:
            return _start_again(part)
        known = _Version.read(tag) if had else _Version()
        headers = {"Accept-Encoding": "identity"}
        if had:
            headers["Range"] = f"bytes={had}-"
            headers |= {"If-Range": known.condition} if known.condition else {}
        with self.session.get(
            remote.url, headers=headers, auth=remote.auth, stream=True,
            timeout=(self.patience.connect, self.patience.silence),
        ) as answer:  # fmt: skip
            if answer.status_code == 416:
                same = not known.told or _Version.of(answer).told in ("", known.told)
                return (same and _ends_at(answer, had) and remote.size in (None, had)) or _start_again(part)
            _refuse(answer, remote)
            if answer.status_code in AGAIN:
                raise _BusyError(answer)
            start, version = _start(answer), _Version.of(answer)
            if start not in (0, had) or (start and not known.goes_on_in(version)):
                return _start_again(part)
            version = replace(version, total=version.total or known.total) if start else version
            _check_total(remote, version.total, part)
            _check_room(version.total or remote.size or 0, start, part)
            version.write(tag)
            return self._append(answer, part, start, version.total or remote.size)

    def _append(self, answer: requests.Response, part: Path, start: int, total: int | None) -> bool:
        """Add the body from the byte `start`; True when the file is whole, as far as its length is known.

        Of a part of unknown length only the next answer tells whether it was the last one.
        """
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
        return done >= total if total is not None else not start

    def _check(self, remote: Remote, path: Path, named: Path, remedy: str = "fetch it again") -> None:
        """What does not have the published digest is removed, unless somebody else put it there."""
        if remote.size is not None and (size := _size(path)) != remote.size:
            raise FetchError(
                "not of the published size", where=named, expected=f"{remote.size} bytes", found=size, remedy=remedy
            )
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


@dataclass(frozen=True)
class _Version:
    """Which version of a file an answer is of, as far as a server tells.

    condition: what asks for the same one, a strong ETag or else a date. told: any ETag or date. total: its length.
    """

    condition: str = ""
    told: str = ""
    total: int | None = None

    @classmethod
    def of(cls, answer: requests.Response) -> _Version:
        etag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        strong = etag if not etag.startswith("W/") else ""
        return cls(strong or date, etag or date, _total(answer))

    @classmethod
    def read(cls, tag: Path) -> _Version:
        """What was noted beside a part; of one without a readable note, nothing."""
        try:
            return cls(**json.loads(tag.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, tag: Path) -> None:
        tag.write_text(json.dumps(asdict(self)))

    def goes_on_in(self, other: _Version) -> bool:
        """Whether a part of this version may go on with bytes of the other."""
        return self.told == other.told and (None in (self.total, other.total) or self.total == other.total)


def _start(answer: requests.Response) -> int:
    """The byte that the body begins with: 0 of a whole file, -1 of a part that does not say which one it is."""
    if answer.status_code != 206:
        return 0
    found = RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return int(found[1]) if found else -1


def _total(answer: requests.Response) -> int | None:
    """The length of the whole file, where it is told."""
    length = answer.headers.get("Content-Length", "")
    if answer.status_code != 206:
        return int(length) if length.isdecimal() else None
    found = RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return int(found[3]) if found and found[3] != "*" else None


def _check_room(total: int, start: int, part: Path) -> None:
    """Refuse before the first byte what does not fit on the disk.

    Raises:
        OutputError: it does not.
    """
    free = shutil.disk_usage(part.parent).free + (0 if start else _size(part))
    if total - start > free:
        raise OutputError(
            "no room", where=part.with_name(part.name.removesuffix(".part")), expected=f"{total - start} bytes",
            found=f"{free}", remedy="make room, or choose another --to",
        )  # fmt: skip


def _check_total(remote: Remote, total: int | None, part: Path) -> None:
    """Refuse before the first byte what is of another length than was published.

    Raises:
        FetchError: it is.
    """
    if None not in (remote.size, total) and remote.size != total:
        _start_again(part)
        raise _other_size(remote, total or 0)


def _other_size(remote: Remote, found: int) -> FetchError:
    return FetchError(
        "not of the published size", where=remote.url, expected=f"{remote.size} bytes", found=f"{found}",
        remedy=remote.remedy or None,
    )  # fmt: skip


class _BusyError(Exception):
    """A server's answer that passes, and the seconds after which it wants to be asked again."""

    def __init__(self, answer: requests.Response) -> None:
        self.status, told = answer.status_code, answer.headers.get("Retry-After", "").strip()
        self.wait = float(told) if told.isdecimal() else 0.0
        with suppress(ValueError, TypeError):
            until = parsedate_to_datetime(told)
            self.wait = max((until - datetime.now(until.tzinfo)).total_seconds(), 0.0)
        super().__init__(self.status)


def _ends_at(answer: requests.Response, had: int) -> bool:
    """Whether the server, asked for what comes after `had` bytes, says that this is all."""
    return answer.headers.get("Content-Range", "") == f"bytes */{had}"


def _start_again(part: Path) -> bool:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)
    return False


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

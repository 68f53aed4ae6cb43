"""Downloads files: an interrupted download is resumed, and a file gets its name only when it is complete and checked.

Until then it is called <name>.part, and <name>.tag holds the version of the file as the server states it. A part is
resumed only if the response has the same version and length, and starts where the part ends; else the download starts
from the beginning. A later run, too, begins anew if the server states no version, and no digest would show a change.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pooch
import requests

from dpconvert.errors import FetchError, OutputError
from dpconvert.obtain import responses
from dpconvert.obtain.responses import BusyError, Version
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter

CHUNK = 1 << 14  # bytes that an interruption may lose
AGAIN = {202, 408, 425, 429, 500, 502, 503, 504}  # temporary errors, and 202: not ready yet
EXPIRED = {401, 403, 404, 410}  # of an address that a server redirects to for a short time only
KILO = 1000
LONGEST_WAIT = 60.0
MOST_PATIENT = 600.0  # longest wait in seconds that a server may request


@dataclass(frozen=True)
class Patience:
    """Timeouts in seconds for connecting and for silence, attempts without progress, and seconds between them."""

    connect: float = 15.0
    silence: float = 60.0
    tries: int = 5
    wait: float = 2.0


PATIENT = Patience()


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    digest: 'sha256:...' or 'md5:...', '' if none is published. size: bytes, if published. remedy: another way to get
    the file.
    """

    url: str
    digest: str = ""
    size: int | None = None
    auth: requests.auth.AuthBase | None = None
    remedy: str = ""


@dataclass
class Downloader:
    """Downloads files over one connection pool; for a single thread. It gives up when `stop` is set."""

    report: Reporter
    session: requests.Session
    patience: Patience = PATIENT
    stop: threading.Event = field(default_factory=threading.Event)
    _begun: set[Path] = field(default_factory=set)  # parts whose first byte was downloaded by this object

    def fetch(self, remote: Remote, path: Path) -> bool:
        """Download the file to `path`. Returns False if it already exists.

        Raises:
            FetchError: the server does not have the file or refuses it, the connection fails repeatedly, or the file is
                not the published one.
            OutputError: the file cannot be written.
        """
        if path.is_file():
            self._check(remote, path, path, remedy="remove it and download it again")
            return False
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._whole(remote, part)
            _check_total(remote, _size(part), part)
            self._check(remote, part, path)
            part.replace(path)
        except requests.RequestException as error:  # also an OSError, but not one of writing
            raise FetchError(f"invalid address: {error}", where=remote.url, remedy=remote.remedy or None) from None
        except OSError as error:
            remedy = "make room and run the same command again: finished parts are kept"
            raise OutputError(f"cannot be written: {error.strerror}", where=path, remedy=remedy) from None
        _tag(part).unlink(missing_ok=True)
        return True

    def _whole(self, remote: Remote, part: Path) -> None:
        """Request the file until it is complete. Attempts are counted from the last progress."""
        tries, most = 0, _size(part)
        while not self.stop.is_set():
            pause = 0.0
            try:
                if self._more(remote, part):
                    return
                reason = "the server is busy, or sends less than announced"
            except BusyError as busy:
                reason, pause = str(busy), busy.wait
            except requests.exceptions.SSLError as error:
                raise FetchError(
                    f"no secure connection: {error}", where=remote.url, remedy=remote.remedy or None
                ) from None
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                reason = responses.reason_of(error)
            except requests.exceptions.ContentDecodingError as error:
                reason = responses.reason_of(error)
                _start_again(part)
            tries = 0 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            if tries >= self.patience.tries:
                raise FetchError(
                    f"{reason}; {tries} attempts without progress",
                    where=remote.url,
                    remedy="run the same command again: finished parts are kept",
                )
            if pause > MOST_PATIENT:
                raise FetchError(
                    f"the server requests a wait of {pause:.0f} s",
                    where=remote.url,
                    remedy="run the same command again after that time: finished parts are kept",
                )
            self.stop.wait(max(pause, min(self.patience.wait * 2**tries, LONGEST_WAIT)))
        raise stopped(remote.url)

    def _more(self, remote: Remote, part: Path) -> bool:
        """Append one response of the server to the part. Returns whether the file is complete."""
        had, tag = _size(part), _tag(part)
        if remote.size is not None and had > remote.size:
            return _start_again(part)
        known = Version.read(tag) if had else Version()
        if had and not (known.tag or remote.digest or part in self._begun):
            self.report.note(f"{part.name.removesuffix('.part')}: begun anew, since its server states no version of it")
            _start_again(part)
            had, known = 0, Version()
        headers = {"Accept-Encoding": "identity"}
        if had:
            headers["Range"] = f"bytes={had}-"
            headers |= {"If-Range": known.condition} if known.condition else {}
        with self.session.get(
            remote.url,
            headers=headers,
            auth=remote.auth,
            stream=True,
            timeout=(self.patience.connect, self.patience.silence),
        ) as answer:
            if answer.status_code == 416:
                same = not known.tag or Version.of(answer).tag in ("", known.tag)
                return (same and responses.ends_at(answer, had) and remote.size in (None, had)) or _start_again(part)
            if answer.status_code in EXPIRED and answer.history:
                raise BusyError(answer, f"the address that it redirects to has expired (HTTP {answer.status_code})")
            _refuse(answer, remote)
            if answer.status_code in AGAIN:
                raise BusyError(answer)
            responses.as_sent(answer, part.name.removesuffix(".part"))
            start, version = responses.first_byte(answer), Version.of(answer)
            if start not in (0, had) or (start and (responses.is_packed(answer) or not known.can_resume_with(version))):
                return _start_again(part)
            version = replace(version, total=version.total or known.total) if start else version
            _check_total(remote, version.total, part)
            _check_room(version.total or remote.size or 0, start, part)
            version.write(tag)
            self._begun |= set() if start else {part}
            total = version.total or remote.size
            done = self._append(answer, remote, part, start, total)
        if total is None:
            return not start  # the next response shows whether this was the last part
        return done >= total if done <= total or not start else _start_again(part)

    def _append(self, answer: requests.Response, remote: Remote, part: Path, start: int, total: int | None) -> int:
        """Write the body of a response from the byte `start` on. Returns the length of the part.

        Raises:
            FetchError: the body is a web page in place of the file.
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
                    raise stopped(answer.url)
                if done == start and responses.is_page(answer, chunk, name):
                    _start_again(part)
                    raise FetchError(
                        "a web page, and not the file: perhaps of a log-in, a proxy or an address that has changed",
                        where=remote.url,
                        remedy=remote.remedy or None,
                    )
                file.write(chunk)
                advance((done + len(chunk)) // KILO - done // KILO)
                done += len(chunk)
        return done

    def _check(self, remote: Remote, path: Path, named: Path, remedy: str = "download it again") -> None:
        """Check size and digest. A downloaded file with another digest is removed, an existing one is not."""
        if remote.size is not None and (size := _size(path)) != remote.size:
            raise FetchError(
                "size differs from the published one",
                where=named,
                expected=f"{remote.size} bytes",
                found=size,
                remedy=remedy,
            )
        if not remote.digest:
            return
        kind, _, digest = remote.digest.partition(":")
        actual = pooch.file_hash(str(path), alg=kind)
        if actual.lower() != digest.lower():
            if path != named:
                path.unlink()
                _tag(path).unlink(missing_ok=True)
            raise FetchError(
                "not the published file", where=named, expected=remote.digest, found=f"{kind}:{actual}", remedy=remedy
            )


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a download folder."""
    taken = "another `dpconvert fetch` is writing to this folder"
    return locks.locked(folder, taken, "wait until it ends, or choose another --to", "choose another --to")


def stopped(url: str) -> FetchError:
    """The error of a download that was stopped."""
    return FetchError("stopped", where=url, remedy="run the same command again: finished parts are kept")


def _refuse(answer: requests.Response, remote: Remote) -> None:
    """Raise FetchError for a response that retrying will not change."""
    code = answer.status_code
    if code in (200, 206) or code in AGAIN:
        return
    what = {
        401: "authentication required",
        403: "access denied",
        404: "file not found",
        410: "the file no longer exists",
    }
    reason = what.get(code, "the server refuses the request")
    raise FetchError(f"{reason} (HTTP {code})", where=remote.url, remedy=remote.remedy or None)


def _check_room(total: int, start: int, part: Path) -> None:
    """Check before the first byte that the file fits on the disk.

    Raises:
        OutputError: The disk space is not sufficient.
    """
    free = shutil.disk_usage(part.parent).free + (0 if start else _size(part))
    if total - start > free:
        raise OutputError(
            "not enough disk space",
            where=part.with_name(part.name.removesuffix(".part")),
            expected=f"{total - start} bytes",
            found=f"{free}",
            remedy="make room, or choose another --to",
        )


def _check_total(remote: Remote, total: int | None, part: Path) -> None:
    """Check before the first byte that the file has the published size.

    Raises:
        FetchError: The sizes differ.
    """
    if None not in (remote.size, total) and remote.size != total:
        _start_again(part)
        raise FetchError(
            "size differs from the published one",
            where=remote.url,
            expected=f"{remote.size} bytes",
            found=f"{total}",
            remedy=remote.remedy or None,
        )


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

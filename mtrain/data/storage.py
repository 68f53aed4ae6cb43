"""Reading from object stores and web servers through fsspec: slow and failing answers are tried again, what cannot be
had is told in one line. URLs carry no credentials: the libraries find them where they always do.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import logging
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec  # type: ignore[import-untyped]

from mtrain.errors import RunError, UsageError

T = TypeVar("T")
SCHEMES = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}  # and the extra that reads them
ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(?=[^/])")  # pathlib makes one slash of two
TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between tries: twice as long each time, more or less
CONNECT_SECONDS, READ_SECONDS = 10, 60  # an answer that is slower has failed
BLOCK = 4 << 20
# unless this is "false" gcsfs asks by gRPC what kind of bucket it has; such a channel does not outlive a worker's fork
PLAIN_GCS = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
# exceptions of the libraries beside OSError
FAILURES = {
    "s3": (
        ("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
    ),
    "gcs": (
        ("aiohttp", "ClientError"), ("gcsfs.retry", "HttpError"), ("gcsfs.retry", "ChecksumError"),
        ("google.auth.exceptions", "GoogleAuthError"), ("builtins", "ValueError"),  # which is a "Bad Request"
    ),
    "http": (("aiohttp", "ClientError"),),
}  # fmt: skip
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "NoAuthTokenError"}
CREDENTIALS = {
    "s3": "set up credentials as for the `aws` command, or FSSPEC_S3_ANON=true for a public bucket",
    "gcs": "run `gcloud auth application-default login`, or set FSSPEC_GCS_TOKEN=anon for a public bucket",
    "http": "put them into ~/.netrc",
}


def url_of(place: str | Path) -> str | None:
    """The URL that `place` is, without a slash at its end; None for a folder of this machine.

    Raises:
        UsageError: it holds credentials, which would get into logs and run folders.
    """
    text = str(place)
    found = ADDRESS.match(text)
    if found is None:
        return None
    parts = urlsplit(f"{found[1]}://{text[found.end() :]}")
    if parts.username is not None or parts.query or parts.fragment:
        host = parts.netloc.rpartition("@")[2]
        plain = urlunsplit((parts.scheme, host, parts.path, "", ""))
        raise UsageError(
            "no user, password or query in the address of shards: it is written into logs and run folders",
            where=plain, remedy=CREDENTIALS[SCHEMES[parts.scheme]],
        )  # fmt: skip
    return urlunsplit(parts).rstrip("/")


def absolute(place: str | Path) -> str:
    """A URL as it is; a folder as an absolute path."""
    return url_of(place) or str(Path(place).absolute())


class Storage:
    """The file system that a URL is on."""

    def __init__(self, url: str) -> None:
        self.scheme = url.partition(":")[0]
        self.extra = SCHEMES[self.scheme]
        self._files = file_system(self.scheme, os.getpid())
        self._failures: tuple[type[BaseException], ...] = (OSError, *_failures(self.extra))

    @property
    def listable(self) -> bool:
        """Whether it knows folders."""
        return self.extra != "http"

    def read(self, url: str) -> bytes | None:
        """A whole small file; None where there is none.

        Raises:
            RunError: it cannot be read.
        """

        def read() -> bytes | None:
            try:
                return bytes(self._files.cat_file(url))
            except FileNotFoundError:
                return None

        return self.patiently(url, read)

    def exists(self, url: str) -> bool:
        """Whether there is such a file."""
        return self.read(url) is not None

    def folders(self, url: str) -> list[str]:
        """Names of the folders in a folder, in order.

        Raises:
            RunError: it cannot be listed.
        """

        def read() -> list[dict[str, Any]]:
            try:
                return list(self._files.ls(url, detail=True, refresh=True))
            except FileNotFoundError:
                return []

        entries = self.patiently(url, read)
        names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        return sorted(name for name in names if not name.startswith("."))

    def reader(self, url: str, size: int) -> BinaryIO:
        """The `size` bytes of a file from its beginning; reading goes on where an answer broke off."""
        return io.BufferedReader(_Reader(self, url, size), BLOCK)

    def open_at(self, url: str, position: int) -> BinaryIO:
        """An open file that is read from `position` on."""
        if self.listable:
            file: BinaryIO = self._files.open(url, "rb", block_size=BLOCK, cache_type="readahead")
            file.seek(position)
            return file
        file = self._files.open(url, "rb", block_size=0)  # one answer, however long
        with ExitStack() as failed:
            failed.callback(file.close)
            while position:  # not every server knows how to begin in the middle
                passed = file.read(min(position, BLOCK))
                if not passed:
                    raise OSError("the answer is shorter than it was")
                position -= len(passed)
            failed.pop_all()
        return file

    def patiently(self, url: str, action: Callable[[], T]) -> T:
        """What `action` answers, which may fail a few times.

        Raises:
            RunError: it has failed to the end, or there is no sense in trying again.
        """
        for attempt in range(TRIES):
            try:
                return action()
            except self._failures as error:
                if attempt == TRIES - 1 or _hopeless(error):
                    raise self.error(url, error) from None
            wait(attempt)
        raise AssertionError("unreachable")

    def error(self, url: str, error: BaseException) -> RunError:
        """What failed, for a person."""
        kind = type(error).__name__
        if isinstance(error, FileNotFoundError):
            return RunError("no such file there", where=url, remedy="check the address, or upload the shards again")
        if kind in NO_CREDENTIALS or _refused(error):
            what = "no credentials were found" if kind in NO_CREDENTIALS else "access is refused"
            return RunError(what, where=url, remedy=CREDENTIALS[self.extra])
        if isinstance(error, TimeoutError):
            return RunError("no answer in time", where=url, remedy="check the network, and run the command again")
        reason = _without_addresses(str(error).partition("\n")[0]) or kind
        return RunError(f"cannot be read: {reason}", where=url, remedy="check the network, and run the command again")


class _Reader(io.RawIOBase):
    """The bytes of a file in order; what breaks off is opened again where it broke off."""

    def __init__(self, storage: Storage, url: str, size: int) -> None:
        self._storage, self._url, self._size = storage, url, size
        self._position = 0
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._storage.patiently(self._url, lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, most: int) -> bytes:
        most = min(most, self._size - self._position)
        if not most:
            return b""
        file, self._file = self._file, None  # a file that failed is not asked again
        file = file or self._storage.open_at(self._url, self._position)
        with ExitStack() as failed:
            failed.callback(file.close)
            data = file.read(most)
            if not data:
                raise OSError(f"the answer broke off after {self._position} of {self._size} bytes")
            failed.pop_all()
        self._file = file
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


@functools.cache
def file_system(scheme: str, _process: int) -> Any:
    """The library's object for a scheme, one a process.

    Raises:
        UsageError: its extra is not installed.
    """
    extra = SCHEMES[scheme]
    try:
        files = fsspec.filesystem(scheme, skip_instance_cache=True, **_options(extra))
    except ImportError:
        what = f"{scheme}:// needs packages that are not installed"
        raise UsageError(what, remedy=f"pip install 'dpconvert[{extra}]'") from None
    if hasattr(files, "retries"):
        files.retries = 1  # trying again is ours: tries of tries would take hours
    if extra == "gcs":
        files._request = partial(
            inspect.unwrap(type(files)._request), files
        )  # it is wrapped in tries, whatever `retries`
    return files


def _options(extra: str) -> dict[str, Any]:
    """What each library calls the same: how long it waits for an answer, and that it asks once."""
    if extra == "s3":
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": limits | {"retries": {"total_max_attempts": 1}}}
    aiohttp = _imported("aiohttp")
    if aiohttp is None:
        return {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    if extra == "http":
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # which is what reads ~/.netrc
    os.environ.setdefault(PLAIN_GCS, "false")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints a traceback of what is tried again
    return {"requests_timeout": timeout}


def wait(attempt: int) -> None:
    """Sleep before the next try; not to the same moment as everybody else."""
    time.sleep(min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0))


def _hopeless(error: BaseException) -> bool:
    """Whether another try would fail the same way: not there, not allowed."""
    status = _status(error)
    return (
        isinstance(error, FileNotFoundError)
        or _refused(error)
        or type(error).__name__ in NO_CREDENTIALS
        or (400 <= status < 500 and status not in (408, 425, 429))
    )


def _refused(error: BaseException) -> bool:
    """Whether this is not allowed; gcsfs has no class of its own for it."""
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden: ")
    return forbidden or isinstance(error, PermissionError) or _status(error) in (401, 403)


def _status(error: BaseException) -> int:
    """The HTTP status that the libraries' errors carry, aiohttp's and gcsfs's; 0 where there is none."""
    found = getattr(error, "status", None) or getattr(error, "code", None)
    return found if isinstance(found, int) else 0


def _failures(extra: str) -> tuple[type[BaseException], ...]:
    return tuple(getattr(importlib.import_module(module), name) for module, name in FAILURES[extra])


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _without_addresses(text: str) -> str:
    """Errors of the libraries may name a signed address."""
    return re.sub(r"https?://[^\s'\"]*", lambda address: address[0].partition("?")[0], text)

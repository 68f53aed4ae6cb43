"""Read from object stores and web servers through fsspec. Slow and failed requests are retried; errors are reported in
one line. URLs carry no credentials: the libraries find them in their usual places.
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
from types import ModuleType
from typing import Any, BinaryIO, TypeVar

import fsspec  # type: ignore[import-untyped]

from mtrain.data.addresses import CREDENTIALS, SCHEMES
from mtrain.errors import RunError, UsageError

T = TypeVar("T")
TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between attempts, doubled each time, with jitter
CONNECT_SECONDS, READ_SECONDS = 10, 60  # timeouts
BLOCK = 4 << 20
# unless this is "false", gcsfs queries the kind of bucket by gRPC, and gRPC channels do not survive a fork
PLAIN_GCS = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
# exceptions of the libraries, in addition to OSError
FAILURES = {
    "s3": (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
    ),
    "gcs": (
        ("aiohttp", "ClientError"),
        ("gcsfs.retry", "HttpError"),
        ("gcsfs.retry", "ChecksumError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("builtins", "ValueError"),  # which is a "Bad Request"
    ),
    "http": (("aiohttp", "ClientError"),),
}
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "NoAuthTokenError"}


class Storage:
    """The file system of a URL."""

    def __init__(self, url: str) -> None:
        self.scheme = url.partition(":")[0]
        self.extra = SCHEMES[self.scheme]
        self._files = file_system(self.scheme, os.getpid())
        self._failures: tuple[type[BaseException], ...] = (OSError, *_failures(self.extra))

    @property
    def listable(self) -> bool:
        """Whether folders can be listed."""
        return self.extra != "http"

    def read(self, url: str) -> bytes | None:
        """The content of a small file; None if it does not exist.

        Raises:
            RunError: the file cannot be read.
        """

        def read() -> bytes | None:
            try:
                return bytes(self._files.cat_file(url))
            except FileNotFoundError:
                return None

        return self.patiently(url, read)

    def exists(self, url: str) -> bool:
        """Whether the file exists."""
        return self.read(url) is not None

    def folders(self, url: str) -> list[str]:
        """Sorted names of the subfolders of a folder.

        Raises:
            RunError: the folder cannot be listed.
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
        """A reader of a file of `size` bytes. After a broken connection, it resumes at the same position."""
        return io.BufferedReader(_UrlReader(self, url, size), BLOCK)

    def open_at(self, url: str, position: int) -> BinaryIO:
        """The file, opened for reading from `position` on."""
        if self.listable:
            file: BinaryIO = self._files.open(url, "rb", block_size=BLOCK, cache_type="readahead")
            file.seek(position)
            return file
        file = self._files.open(url, "rb", block_size=0)  # a single request for the whole file
        with ExitStack() as failed:
            failed.callback(file.close)
            while position:  # skip bytes, because not every server supports ranges
                passed = file.read(min(position, BLOCK))
                if not passed:
                    raise OSError("the response is shorter than before")
                position -= len(passed)
            failed.pop_all()
        return file

    def patiently(self, url: str, action: Callable[[], T]) -> T:
        """The result of `action`, which is retried a few times if it fails.

        Raises:
            RunError: every attempt failed, or the error is permanent.
        """
        for attempt in range(TRIES):
            try:
                return action()
            except self._failures as error:
                if attempt == TRIES - 1 or _is_permanent(error):
                    raise self.error(url, error) from None
            wait(attempt)
        raise AssertionError("unreachable")

    def error(self, url: str, error: BaseException) -> RunError:
        """The error as a line for the user."""
        kind = type(error).__name__
        if isinstance(error, FileNotFoundError):
            return RunError("no such file", where=url, remedy="check the address, or upload the shards again")
        if kind in NO_CREDENTIALS or _refused(error):
            what = "no credentials found" if kind in NO_CREDENTIALS else "access denied"
            return RunError(what, where=url, remedy=CREDENTIALS[self.extra])
        if isinstance(error, TimeoutError):
            return RunError("no response in time", where=url, remedy="check the network, and run the command again")
        reason = _without_addresses(str(error).partition("\n")[0]) or kind
        return RunError(f"cannot be read: {reason}", where=url, remedy="check the network, and run the command again")


class _UrlReader(io.RawIOBase):
    """Reads a file sequentially. After a broken connection, the file is opened again at the same position."""

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
        file, self._file = self._file, None  # a file whose read fails is not used again
        file = file or self._storage.open_at(self._url, self._position)
        with ExitStack() as failed:
            failed.callback(file.close)
            data = file.read(most)
            if not data:
                raise OSError(f"the connection broke after {self._position} of {self._size} bytes")
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
    """The fsspec file system for a scheme, one per process.

    Raises:
        UsageError: the extra that reads it is not installed.
    """
    extra = SCHEMES[scheme]
    try:
        files = fsspec.filesystem(scheme, skip_instance_cache=True, **_options(extra))
    except ImportError:
        what = f"{scheme}:// needs packages that are not installed"
        raise UsageError(what, remedy=f"pip install 'dpconvert[{extra}]'") from None
    if hasattr(files, "retries"):
        files.retries = 1  # we retry ourselves: nested retries would take hours
    if extra == "gcs":
        files._request = partial(
            inspect.unwrap(type(files)._request), files
        )  # the original retries, whatever `retries` is
    return files


def _options(extra: str) -> dict[str, Any]:
    """The options of each library for timeouts and a single attempt."""
    if extra == "s3":
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": limits | {"retries": {"total_max_attempts": 1}}}
    aiohttp = _imported("aiohttp")
    if aiohttp is None:
        return {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    if extra == "http":
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # trust_env makes it read ~/.netrc
    os.environ.setdefault(PLAIN_GCS, "false")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs a traceback of each failed attempt
    return {"requests_timeout": timeout}


def wait(attempt: int) -> None:
    """Sleep before the next attempt, with random jitter so that processes do not retry at the same time."""
    time.sleep(min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0))


def _is_permanent(error: BaseException) -> bool:
    """Whether another attempt would fail in the same way: the file does not exist, or access is denied."""
    status = _status(error)
    return (
        isinstance(error, FileNotFoundError)
        or _refused(error)
        or type(error).__name__ in NO_CREDENTIALS
        or (400 <= status < 500 and status not in (408, 425, 429))
    )


def _refused(error: BaseException) -> bool:
    """Whether access was denied. gcsfs has no exception class for this."""
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden: ")
    return forbidden or isinstance(error, PermissionError) or _status(error) in (401, 403)


def _status(error: BaseException) -> int:
    """The HTTP status in an error of aiohttp or gcsfs; 0 if there is none."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else 0


def _failures(extra: str) -> tuple[type[BaseException], ...]:
    return tuple(getattr(importlib.import_module(module), name) for module, name in FAILURES[extra])


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _without_addresses(text: str) -> str:
    """The text without the queries of URLs: errors of the libraries may contain signed ones."""
    return re.sub(r"https?://[^\s'\"]*", lambda address: address[0].partition("?")[0], text)

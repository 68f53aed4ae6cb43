"""List remote shards (s3://, gs://, https://), and copy them whole into a cache on this machine.

A copy is checked against the sha256 in task.json before it gets its final name, which is that digest:

<cache>/shards/<sha256>.tar         whole shards; the least recently used are removed to stay within the bound
<cache>/tasks/<Task>-<digest>/      task.json and index.parquet

Workers, ranks and programs share the cache; a lock for each shard ensures that it is downloaded once. Libraries find
credentials in their usual places (AWS_* and ~/.aws, Google's defaults, ~/.netrc). URLs that contain any are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pooch

from dpconvert.runtime import locks
from mtrain.data.storage import Storage
from mtrain.disk.atomic import replacing, writing
from mtrain.errors import ShardError, UsageError
from mtrain.used import mark

CACHE, CACHE_SIZE = "MTRAIN_CACHE", "MTRAIN_CACHE_SIZE"
LISTING = "tasks.json"  # the list of tasks on a web server, whose folders cannot be listed
CARD = "task.json"
AT_ONCE = 4  # shards downloaded in parallel
PIECE = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Copy:
    """A remote shard, and the path of its copy on this machine once it is downloaded."""

    url: str
    path: Path
    size: int
    sha256: str

    def ensure(self) -> Path:
        """The path of the copy, which is downloaded if it does not exist.

        Raises:
            ShardError: the remote file has another digest.
            RunError: the shard cannot be downloaded or stored.
        """
        if not self.here:
            with self._locked():
                if not self.here:  # another process may have downloaded it meanwhile
                    make_room(self.path.parent, self.size)
                    self._fetch()
        return self.path

    def open(self) -> int:
        """A file descriptor of the copy, which is downloaded again if it was removed to make room for others."""
        while True:
            path = self.ensure()
            with suppress(FileNotFoundError):  # removed a moment ago
                return os.open(path, os.O_RDONLY)

    @property
    def here(self) -> bool:
        """Whether the shard is downloaded. Also marks it as recently used."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        return self.path.stat().st_size == self.size

    def _fetch(self) -> None:
        with replacing(self.path) as partial, writing(partial), partial.open("wb") as file:
            digest = hashlib.sha256()
            with Storage(self.url).reader(self.url, self.size) as remote:
                while piece := remote.read(PIECE):
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != self.sha256:
                raise ShardError(
                    "not the shard that task.json describes",
                    where=self.url,
                    expected=f"sha256 {self.sha256}",
                    found=digest.hexdigest(),
                    remedy="upload the shards again",
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locks.held(_lock_of(self.path), math.inf))
            yield


def fetch(copies: Sequence[Copy], done: Callable[[int], object] = lambda _bytes: None) -> None:
    """Download the shards that are not in the cache yet, in parallel. `done` is called with the size of each of them.

    Raises:
        UsageError: all of them together exceed the maximum size of the cache.
        ShardError, RunError: as `Copy.ensure`.
    """
    if not copies:
        return
    total, bound = sum(copy.size for copy in copies), cache_bound()
    if total > bound:
        raise UsageError(
            "the shards do not fit into the cache",
            where=cache_folder(),
            expected=f"at most {_readable(bound)}",
            found=_readable(total),
            remedy="increase --cache-size, give another folder with --cache, or train with --stream",
        )
    missing = [copy for copy in copies if not copy.here]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        waiting = [threads.submit(copy.ensure) for copy in missing]
        try:
            for copy, one in zip(missing, waiting, strict=True):
                one.result()
                done(copy.size)
        finally:
            for one in waiting:
                one.cancel()


def make_room(folder: Path, size: int) -> None:
    """Remove the least recently used copies until `size` more bytes fit within the bound."""
    with locks.held(folder / ".room.lock", math.inf):
        kept = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry) for entry in folder.glob("*.tar"))
        free = cache_bound() - sum(length for _, length, _ in kept)
        for _, length, path in kept:
            if free >= size:
                break
            path.unlink(missing_ok=True)
            free += length


def task_folders(url: str) -> list[str]:
    """The URLs of the tasks under a URL, which may itself be that of a single task.

    Buckets are listed. A web server offers `tasks.json`, a list of the names of its tasks.

    Raises:
        UsageError: there is no task.
        RunError: the URL cannot be listed.
    """
    storage = Storage(url)
    names = storage.folders(url) if storage.listable else _listed(storage, url)
    if names:
        return [f"{url}/{name}" for name in names]
    if storage.exists(f"{url}/{CARD}"):
        return [url]
    expected = f"folders of tasks, or {CARD}" if storage.listable else f"{LISTING} (a list of task names), or {CARD}"
    raise UsageError("no task at this address", where=url, expected=expected)


def task_folder(url: str) -> Path:
    """A local folder, named after its content, with the task.json of the task at a URL.

    Raises:
        ShardError: there is no task.json, because the task is unfinished.
    """
    card = Storage(url).read(f"{url}/{CARD}")
    if card is None:
        raise ShardError(f"no {CARD}", where=url, remedy="finish the conversion, or the upload, and try again")
    folder = cache_folder() / "tasks" / f"{url.rpartition('/')[2]}-{hashlib.sha256(card).hexdigest()[:16]}"
    if not (folder / CARD).is_file() or (folder / CARD).read_bytes() != card:
        with replacing(folder / CARD) as partial:
            partial.write_bytes(card)
    return folder


def index_file(url: str, name: str, folder: Path, size: int, sha256: str) -> Path:
    """The path of the task's index, which is downloaded unless a complete copy exists."""
    copy = Copy(_inside(url, name), folder / name, size, _digest(url, sha256))
    with locks.held(folder / locks.NAME, math.inf):
        if not copy.here or hashlib.sha256(copy.path.read_bytes()).hexdigest() != sha256:
            copy._fetch()
    return copy.path


def shard_copy(url: str, name: str, size: int, sha256: str) -> Copy:
    """The copy of a shard of the task at `url`; nothing is downloaded."""
    path = cache_folder() / "shards" / f"{_digest(url, sha256)}.tar"
    return Copy(_inside(url, name), path, size, sha256)


def cache_folder() -> Path:
    """$MTRAIN_CACHE, else the user's cache folder."""
    mark("cache", "cache_size")
    return Path(os.environ.get(CACHE) or pooch.os_cache("mtrain")).absolute()


def cache_bound() -> int:
    """Maximum size of the cache in bytes: $MTRAIN_CACHE_SIZE, else four fifths of the space that its disk has for it.

    Raises:
        UsageError: $MTRAIN_CACHE_SIZE is not a size.
    """
    configured = os.environ.get(CACHE_SIZE)
    if configured:
        return parse_size(configured)
    folder = cache_folder() / "shards"
    taken = sum(path.stat().st_size for path in folder.glob("*.tar"))
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return (shutil.disk_usage(existing).free + taken) * 4 // 5


def parse_size(text: str) -> int:
    """'500 GB' -> 500 000 000 000.

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise UsageError("not a size", expected="a size such as 500GB", found=text)
    return int(float(match[1]) * UNITS[match[2]])


def _listed(storage: Storage, url: str) -> list[str]:
    address = f"{url}/{LISTING}"
    content = storage.read(address)
    if content is None:
        return []
    try:
        names = json.loads(content)
    except (ValueError, RecursionError):
        names = None
    plain = isinstance(names, list) and all(isinstance(name, str) and re.fullmatch(r"[\w-]+", name) for name in names)
    if not plain:
        raise ShardError("not a list of task names", where=address, expected='for example ["Lung", "Breast"]')
    return sorted(set(names))


def _inside(url: str, name: str) -> str:
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise ShardError("invalid file name", where=f"{url}/{CARD}", found=name)
    return f"{url}/{name}"


def _digest(url: str, sha256: str) -> str:
    if not SHA256.fullmatch(sha256):
        raise ShardError("not a sha256", where=f"{url}/{CARD}", found=sha256[:80])
    return sha256


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"

"""Shards elsewhere (s3://, gs://, https://): listed, copied whole into a cache on this machine, or read as a stream.

A copy is checked against the sha256 in task.json before it carries its name, which is that digest:

<cache>/shards/<sha256>.tar         whole shards; those used last stay within the bound
<cache>/tasks/<Task>-<digest>/      task.json and index.parquet

Workers, ranks and programs share the cache: a lock for each shard sees that it is fetched once. Credentials come from
where the libraries look for them (AWS_* and ~/.aws, Google's defaults, ~/.netrc); a URL that holds some is refused.
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
from mtrain.atomic import replacing, writing
from mtrain.data.storage import Storage
from mtrain.errors import ShardError, UsageError

CACHE, CACHE_SIZE = "MTRAIN_CACHE", "MTRAIN_CACHE_SIZE"
LISTING = "tasks.json"  # what a web server, which cannot be listed, offers instead
CARD = "task.json"
AT_ONCE = 4  # shards that are fetched at the same time
PIECE = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Copy:
    """A shard elsewhere, and where its copy lies on this machine once it has been fetched."""

    url: str
    path: Path
    size: int
    sha256: str

    def ensure(self) -> Path:
        """The path of the copy, fetched if it is not there.

        Raises:
            ShardError: what is there has another digest.
            RunError: it cannot be had, or kept.
        """
        if not self.here:
            with self._locked():
                if not self.here:  # another process may have fetched it meanwhile
                    make_room(self.path.parent, self.size)
                    self._fetch()
        return self.path

    def open(self) -> int:
        """A descriptor of the copy, fetched again if it had to make room for others."""
        while True:
            path = self.ensure()
            with suppress(FileNotFoundError):  # gone since a moment ago
                return os.open(path, os.O_RDONLY)

    @property
    def here(self) -> bool:
        """Whether it has been fetched; what is asked for now is the last to go."""
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
    """Have all of these here, several at a time; `done` is told the size of each that was not.

    Raises:
        UsageError: together they are larger than the cache may be.
        ShardError, RunError: as `Copy.ensure`.
    """
    if not copies:
        return
    total, bound = sum(copy.size for copy in copies), cache_bound()
    if total > bound:
        raise UsageError(
            f"these shards do not fit into the cache: {_readable(total)}",
            where=cache_folder(),
            expected=f"at most {_readable(bound)}",
            remedy="give more with --cache-size, another folder with --cache, or train with --stream",
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
    """Remove the copies that were used longest ago, until `size` more bytes stay within the bound."""
    with locks.held(folder / ".room.lock", math.inf):
        kept = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry) for entry in folder.glob("*.tar"))
        free = cache_bound() - sum(held for _, held, _ in kept)
        for _, held, path in kept:
            if free >= size:
                break
            path.unlink(missing_ok=True)
            free += held


def task_folders(url: str) -> list[str]:
    """URLs of the tasks under a URL; that of a single task is its own.

    A bucket is listed; a web server has a `tasks.json`, the list of the tasks' names, or the URL is that of a task.

    Raises:
        UsageError: no task there.
        RunError: it cannot be listed.
    """
    storage = Storage(url)
    names = storage.folders(url) if storage.listable else _listed(storage, url)
    if names:
        return [f"{url}/{name}" for name in names]
    if storage.exists(f"{url}/{CARD}"):
        return [url]
    wanted = f"folders of tasks, or {CARD}" if storage.listable else f"{LISTING} (a list of task names), or {CARD}"
    raise UsageError("no task here", where=url, expected=wanted)


def task_folder(url: str) -> Path:
    """task.json of the task at a URL, in a folder of this machine that is named for its content.

    Raises:
        ShardError: there is none: the task is unfinished.
    """
    card = Storage(url).read(f"{url}/{CARD}")
    if card is None:
        raise ShardError(f"without {CARD}", where=url, remedy="finish the conversion, or the upload, and try again")
    folder = cache_folder() / "tasks" / f"{url.rpartition('/')[2]}-{hashlib.sha256(card).hexdigest()[:16]}"
    if not (folder / CARD).is_file() or (folder / CARD).read_bytes() != card:
        with replacing(folder / CARD) as partial:
            partial.write_bytes(card)
    return folder


def index_file(url: str, name: str, folder: Path, size: int, sha256: str) -> Path:
    """The task's index, fetched into its folder if it is not there whole."""
    copy = Copy(_inside(url, name), folder / name, size, _digest(url, sha256))
    with locks.held(folder / locks.NAME, math.inf):
        if not copy.here or hashlib.sha256(copy.path.read_bytes()).hexdigest() != sha256:
            copy._fetch()
    return copy.path


def shard_copy(url: str, name: str, size: int, sha256: str) -> Copy:
    """The copy, not yet fetched, of a shard of the task at `url`."""
    path = cache_folder() / "shards" / f"{_digest(url, sha256)}.tar"
    return Copy(_inside(url, name), path, size, sha256)


def cache_folder() -> Path:
    """$MTRAIN_CACHE, else the user's cache folder."""
    return Path(os.environ.get(CACHE) or pooch.os_cache("mtrain")).absolute()


def cache_bound() -> int:
    """Bytes of shards that the cache may hold: $MTRAIN_CACHE_SIZE, else four fifths of what its disk has for it.

    Raises:
        UsageError: not a size.
    """
    given = os.environ.get(CACHE_SIZE)
    if given:
        return parse_size(given)
    folder = cache_folder() / "shards"
    held = sum(path.stat().st_size for path in folder.glob("*.tar"))
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return (shutil.disk_usage(there).free + held) * 4 // 5


def parse_size(text: str) -> int:
    """'500 GB' -> 500 000 000 000.

    Raises:
        UsageError: not a size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise UsageError("not a size", found=text, remedy="give one like 500GB")
    return int(float(found[1]) * UNITS[found[2]])


def _listed(storage: Storage, url: str) -> list[str]:
    where = f"{url}/{LISTING}"
    content = storage.read(where)
    if content is None:
        return []
    try:
        names = json.loads(content)
    except (ValueError, RecursionError):
        names = None
    plain = isinstance(names, list) and all(isinstance(name, str) and re.fullmatch(r"[\w-]+", name) for name in names)
    if not plain:
        raise ShardError("not a list of task names", where=where, expected='for example ["Lung", "Breast"]')
    return sorted(set(names))


def _inside(url: str, name: str) -> str:
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise ShardError("not the name of a file", where=f"{url}/{CARD}", found=name)
    return f"{url}/{name}"


def _digest(url: str, sha256: str) -> str:
    if not SHA256.fullmatch(sha256):
        raise ShardError("not a sha256", where=f"{url}/{CARD}", found=sha256[:80])
    return sha256


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"

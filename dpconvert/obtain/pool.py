"""Downloads the sources of a pool, several at a time, and hands each over as soon as it is complete."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dpconvert import names
from dpconvert.card import FILE_NAME
from dpconvert.errors import FetchError, ManifestError, OutputError, UserError
from dpconvert.manifest.catalog import typed
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.pools import PoolSource, SourcePool
from dpconvert.obtain.download import PATIENT, Patience
from dpconvert.obtain.fetch import Fetched, fetch, missing
from dpconvert.runtime.progress import Reporter

GIGABYTE = 10**9
State = Literal["converted", "downloaded", "partly downloaded", "not downloaded"]


@dataclass(frozen=True)
class PoolMember:
    """A source of a pool: its manifest, its expected sizes, its folder, and the folder of its task."""

    manifest: Manifest
    sizes: PoolSource
    folder: Path
    task_folder: Path

    @property
    def state(self) -> State:
        """The progress of the source: whether its files exist in part or in full, and whether it is converted."""
        if (self.task_folder / FILE_NAME).is_file():
            return "converted"
        if not missing(self.manifest, self.folder) and self.folder.is_dir():
            return "downloaded"
        return "partly downloaded" if _size_of(self.folder) else "not downloaded"

    @property
    def needs(self) -> tuple[int, int]:
        """Bytes that are still needed for its files and for its shards."""
        if self.state == "converted":
            return 0, 0
        files = (self.sizes.download + self.sizes.unpacked) * GIGABYTE
        return max(int(files) - _size_of(self.folder), 0), int(self.sizes.shards * GIGABYTE)


@dataclass(frozen=True)
class Arrival:
    """A source whose download ended: with what was downloaded, or with an error."""

    member: PoolMember
    result: Fetched | UserError


def members(pool: SourcePool, base: Path, out: Path) -> list[PoolMember]:
    """The sources of a pool, with a folder for each in `base`, and one for each task in `out`.

    Raises:
        ManifestError: two sources have one name, and so one folder, or one task.
    """
    found = [(pool.manifest(source), source) for source in pool.sources]
    _check_apart(pool, "source folder", [manifest.name for manifest, _ in found])
    _check_apart(pool, "task", [manifest.task for manifest, _ in found])
    return [PoolMember(m, source, base / m.name, out / m.task) for m, source in found]


def _check_apart(pool: SourcePool, what: str, named: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for source, name in zip(pool.sources, named, strict=True):
        if (other := first.setdefault(names.folded(name), source.name)) != source.name:
            raise ManifestError(
                f"two sources have the {what} {name!r}",
                where=pool.path,
                found=f"{other}, {source.name}",
                remedy="list one of them, or rename one in its manifest",
            )


def check_room(chosen: Sequence[PoolMember], base: Path, out: Path, *, convert: bool) -> None:
    """Check before the first byte that everything fits on the disks.

    Raises:
        OutputError: The disk space is not sufficient.
    """
    needs = [member.needs for member in chosen]
    wanted: dict[Path, int] = {_existing(base): sum(files for files, _ in needs)}
    if convert:
        disk = next((candidate for candidate in wanted if _one_disk(candidate, out)), _existing(out))
        wanted[disk] = wanted.get(disk, 0) + sum(shards for _, shards in needs)
    for folder, size in wanted.items():
        if size > (free := shutil.disk_usage(folder).free):
            raise OutputError(
                "not enough disk space for the pool",
                where=folder,
                expected=f"about {size / GIGABYTE:.1f} GB",
                found=f"{free / GIGABYTE:.1f} GB",
                remedy="make room, choose other folders, or list fewer sources",
            )


def arrivals(
    chosen: Sequence[PoolMember], report: Reporter, *, at_once: int, patience: Patience = PATIENT
) -> Generator[Arrival, None, None]:
    """Download the sources, `at_once` at a time; their licences were accepted. Each is given when its download ends.

    An iterator that is closed early stops the downloads; finished parts are kept.
    """
    stop = threading.Event()
    executor = ThreadPoolExecutor(at_once, thread_name_prefix="fetch")
    try:
        started: dict[Future[Fetched], PoolMember] = {
            executor.submit(_fetch, member, report.named(member.manifest.name), patience, stop): member
            for member in chosen
        }
        for future in as_completed(started):
            yield Arrival(started[future], _result(future))
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def _fetch(member: PoolMember, report: Reporter, patience: Patience, stop: threading.Event) -> Fetched:
    manifest, folder = member.manifest, member.folder
    done = fetch(manifest, folder, report, accepted=True, patience=patience, stop=stop)
    if not (done.came or done.had) and not _size_of(folder):
        raise FetchError(
            "must be requested by hand",
            where=manifest.obtain.url or None,
            remedy=f"put its files into {folder}: `dpconvert fetch {typed(manifest)} --to {shlex.quote(str(folder))}` "
            "says which",
        )
    return done


def _result(future: Future[Fetched]) -> Fetched | UserError:
    try:
        return future.result()
    except UserError as error:
        return error


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _one_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == _existing(other).stat().st_dev


def _size_of(folder: Path) -> int:
    """Bytes of the files in a folder, or 0 if it does not exist."""
    files = (Path(where, name) for where, _, names in os.walk(folder) for name in names if name != ".lock")
    return sum(path.stat().st_size for path in files if path.is_file())

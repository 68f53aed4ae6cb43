"""Downloads the files of a source that are publicly available, and gives instructions for the others.

Zip archives are kept, since they are read in place. Tar archives are unpacked to a folder of the same name, which
appears only when it is complete.
"""

from __future__ import annotations

import gzip
import shlex
import shutil
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from requests import Session

from dpconvert.errors import FetchError, OutputError, UsageError
from dpconvert.manifest.catalog import typed
from dpconvert.manifest.files import Archive
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, Regional
from dpconvert.obtain.cytomine_project import ExportRequest
from dpconvert.obtain.download import PATIENT, Downloader, Patience, Remote, locked, stopped
from dpconvert.runtime.progress import Reporter
from dpconvert.source import bounded
from dpconvert.source.bounded import Bounded, most_unpacked

TAR = (".tar.gz", ".tgz", ".tar")
PIECE = 1 << 20
BROKEN = (*bounded.DAMAGED, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True)
class Fetched:
    """The archives that were downloaded now, that existed before, and that must be requested by hand."""

    folder: Path
    came: list[str]
    had: list[str]
    manual: list[str]


def fetch(
    manifest: Manifest,
    folder: Path,
    report: Reporter,
    *,
    accepted: bool,
    patience: Patience = PATIENT,
    stop: threading.Event | None = None,
) -> Fetched:
    """Download and unpack the archives that have an address; `stop` ends it early, and keeps finished parts.

    Raises:
        UsageError: the licence is not open, and was not accepted.
        FetchError: a download failed, or is not the published file.
        OutputError: another process downloads to the folder, or it cannot be written.
    """
    downloadable = [file for archive in manifest.obtain.archives if _downloadable(archive) for file in archive.files()]
    manual = [archive.name for archive in manifest.obtain.archives if not _downloadable(archive)]
    if downloadable and not (manifest.licence.open or accepted):
        raise UsageError(
            f"{manifest.task} is not under an open licence: {licence(manifest)}",
            remedy="read its terms, and give --accept-licence if you agree to them",
        )
    came: list[str] = []
    had: list[str] = []
    if downloadable:
        with locked(folder), Session() as session:
            _check_room(downloadable, folder)
            downloader = Downloader(report, session, patience, stop or threading.Event())
            for archive in downloadable:
                new = _archive(archive, folder, downloader, manifest)
                (came if new else had).append(archive.name)
    return Fetched(folder, came, had, manual)


def projects(
    manifest: Manifest, host: str | None, numbers: tuple[int, ...], crops: bool | None, connections: int
) -> list[ExportRequest]:
    """The requests to a Cytomine server.

    Raises:
        UsageError: the source does not come from a Cytomine server, or options are missing or exclude each other.
    """
    if manifest.shape != "cytomine":
        raise UsageError("not a project of a Cytomine server", where=manifest.name, remedy="omit --host and --project")
    if not host or not numbers:
        raise UsageError("a server and a project are needed", remedy="give both --host URL and --project ID")
    if crops and isinstance(manifest.rule, Regional):
        raise UsageError("patches of this source are cut from slides", where=manifest.name, remedy="omit --crops")
    crops = isinstance(manifest.rule, Crop) if crops is None else crops
    return [ExportRequest(host, project, crops, connections) for project in numbers]


def instructions(manifest: Manifest, folder: Path) -> list[str]:
    """Instructions for getting a source by hand: where to request it, and where to put its files."""
    lines = [f"{manifest.task} must be requested by hand: {manifest.obtain.url}".rstrip(": ")]
    lines += [" ".join(manifest.obtain.text.split())] if manifest.obtain.text else []
    lines += [f"licence: {licence(manifest)}", f"put these files into {folder}:"]
    lines += [f"  {archive.name}" for archive in manifest.obtain.archives if not _downloadable(archive)]
    kinds = [kind for kind in manifest.files.values() if kind.example]
    lines += [f"  {kind.what}{' (if there are any)' * kind.optional}, like {kind.example}" for kind in kinds]
    return [*lines, f"then: dpconvert check {typed(manifest)} --source {shlex.quote(str(folder))}"]


def licence(manifest: Manifest) -> str:
    """The licence as one line: name, address and note."""
    return "; ".join(filter(None, [manifest.licence.name, manifest.licence.url, manifest.licence.note]))


def missing(manifest: Manifest, folder: Path) -> list[str]:
    """The names of its archives that are neither in the folder nor unpacked there."""
    files = [file for archive in manifest.obtain.archives for file in archive.files()]
    return [one.name for one in files if not _exists(one, folder)]


def _exists(archive: Archive, folder: Path) -> bool:
    unpacked = _is_tar(archive.name) and (folder / _stem(archive.name)).is_dir()
    return unpacked or (folder / archive.name).is_file()


def _downloadable(archive: Archive) -> bool:
    return archive.url.startswith(("http://", "https://"))


def _archive(archive: Archive, folder: Path, downloader: Downloader, manifest: Manifest) -> bool:
    """Download one archive, and unpack it if it is a tar. Returns False if it already exists."""
    path, unpacked = folder / archive.name, folder / _stem(archive.name)
    if _is_tar(archive.name) and unpacked.is_dir():
        return False
    remedy = by_hand(archive, folder, manifest)
    is_new = downloader.fetch(Remote(archive.url, archive.digest, archive.size, remedy=remedy), path)
    if not _is_archive(path):
        if is_new:
            path.unlink()
        raise FetchError("not an archive, perhaps a web page", where=archive.url if is_new else path, remedy=remedy)
    if _is_tar(archive.name):
        downloader.report.note(f"{archive.name}: unpacking")
        unpack(path, unpacked, downloader.stop)
        return True
    return is_new


def unpack(path: Path, folder: Path, stop: threading.Event | None = None) -> None:
    """Unpack a tar archive to `folder`, which appears when it is complete. Nothing is written outside it.

    Raises:
        FetchError: the archive is damaged, has members that would be written outside the folder, or `stop` was set.
        OutputError: the folder cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)

    def member(info: tarfile.TarInfo, where: str) -> tarfile.TarInfo | None:
        if stop is not None and stop.is_set():
            raise stopped(str(path))
        return tarfile.data_filter(info, where)

    try:
        with path.open("rb") if path.suffix == ".tar" else gzip.open(path) as stream:
            limited = Bounded(stream, most_unpacked(path.stat().st_size))  # type: ignore[arg-type]
            with tarfile.open(fileobj=limited, mode="r:") as tar:  # type: ignore[call-overload]
                tar.extractall(part, filter=member)
            while limited.read(PIECE):  # read up to the checksum, before which tarfile stops
                pass
        part.rename(folder)
    except FetchError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    except BROKEN as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FetchError(f"cannot be unpacked: {error}", where=path, remedy="remove it and download it again") from None
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(
            f"cannot be unpacked: {error}", where=path, remedy="make room, and run the command again"
        ) from None


def by_hand(archive: Archive, folder: Path, manifest: Manifest) -> str:
    """The remedy for an archive that cannot be downloaded: where else to get it."""
    ask = f"request it at {manifest.obtain.url}" if manifest.obtain.url else "check its `url` in the manifest"
    return f"{ask}, or put {archive.name} into {folder}"


def _check_room(archives: list[Archive], folder: Path) -> None:
    """Check before the first byte that all archives of published size fit on the disk."""
    absent = [one for one in archives if not (folder / one.name).exists() and not (folder / _stem(one.name)).is_dir()]
    parts = [folder / f"{archive.name}.part" for archive in absent if archive.size]
    had = sum(part.stat().st_size for part in parts if part.is_file())
    needed, free = sum(archive.size or 0 for archive in absent) - had, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            "not enough disk space",
            where=folder,
            expected=f"{needed} bytes",
            found=f"{free}",
            remedy="make room, or choose another --to",
        )


def _is_archive(path: Path) -> bool:
    """Whether a file with the name of an archive is one; files with other names always pass."""
    checks: dict[str, Callable[[Path], bool]] = {".zip": zipfile.is_zipfile} | dict.fromkeys(TAR, tarfile.is_tarfile)
    check = next((check for ending, check in checks.items() if path.name.lower().endswith(ending)), None)
    return check is None or bool(check(path))


def _is_tar(name: str) -> bool:
    return name.lower().endswith(TAR)


def _stem(name: str) -> str:
    ending = next((ending for ending in TAR if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]

"""SHA256SUMS: the digests of files that are given away, in the form of coreutils (`sha256sum -c SHA256SUMS`)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from mtrain.disk.atomic import write_text
from mtrain.disk.documents import CHANGED
from mtrain.errors import RunError

SUMS = "SHA256SUMS"


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Note the digests of these files of `folder`, beside those of other files that are noted and still there.

    Raises:
        RunError: the disk is full, or the like.
    """
    known = {name: digest for name, digest in read_sums(folder).items() if (folder / name).is_file()}
    found = known | {name: file_digest(folder / name) for name in names}
    write_text(folder / SUMS, "".join(f"{found[name]}  {name}\n" for name in sorted(found)))


def remove_others(folder: Path, names: Collection[str]) -> list[str]:
    """Remove the noted files of `folder` that are not among `names` and have not changed since; return their names."""
    removed = []
    for name, digest in sorted(read_sums(folder).items()):
        path = folder / name
        if name not in names and path.parent == folder and path.is_file() and file_digest(path) == digest:
            path.unlink()
            removed.append(name)
    return removed


def check_sum(path: Path) -> None:
    """Nothing, if the folder notes no digest of this file, or the right one.

    Raises:
        RunError: another one.
    """
    stated = read_sums(path.parent).get(path.name)
    if stated is not None and stated != file_digest(path):
        raise RunError(CHANGED, where=path, remedy=f"export it again, or remove it from {path.parent / SUMS}")


def check_published(path: Path, digests: Mapping[str, str]) -> None:
    """Nothing, if no digest of a file of this name was published, or the right one.

    Raises:
        RunError: another one.
    """
    stated = digests.get(path.name)
    if stated is not None and (found := file_digest(path)) != stated:
        raise RunError(
            "not the file that was published: its sha256 is another",
            where=path,
            expected=stated,
            found=found,
            remedy="download it again",
        )


def read_sums(folder: Path) -> dict[str, str]:
    """Name -> digest, of what the folder notes."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = [line.partition("  ") for line in lines]
    return {name.removeprefix("*"): digest for digest, separator, name in parts if separator}


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

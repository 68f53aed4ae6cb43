"""Detect the format of a weights file from its content, not its name, before anything else reads it.

safetensors files and the files of `torch.save` (a zip archive, or a pickle before PyTorch 1.6) are accepted, and so is
the index of weights in several such files (weights_parts). For any other file the error names what it is: a Git LFS
pointer, an HTML page sent in place of a download, a packed archive or a truncated file, for example. This module does
not load torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from mtrain.disk.checksums import file_digest
from mtrain.errors import RunError
from mtrain.model.weight_files.weights_parts import INDEX, INDEXES, WEIGHT_MAP, is_one_of_several, listed_parts

Kind = Literal["safetensors", "zip", "pickle", "index"]
EXPECTED = ".safetensors, .pth or .pt"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# names of weights in a folder: in the order of transformers, and in the folder of a run
IN_FOLDERS = ("model.safetensors", INDEXES[0], "pytorch_model.bin", INDEXES[1], "shared.safetensors")
HEAD = 4096  # bytes
LENGTH = 8  # bytes of the header length at the start of a safetensors file
LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors format
PICKLE, ZIP, TAR, TAR_AT = b"\x80", b"PK\3\4", b"ustar", 257
GIT_LFS = b"version https://git-lfs.github.com/spec/"
MARKS = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\5\6": "an empty zip archive",
}
PACKED = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"(\xb5/\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
UNPACK = "unpack it, and give the weights file inside"
AGAIN = "download or copy it again"
PIECE = 1 << 20  # bytes read at once


def weights_in(path: Path, names: Iterable[str] = ()) -> Path:
    """Return the weights file in a folder: the one called as in timm or transformers, one of `names`, or the only one.

    A file is returned as it is, and so is a folder without a weights file, which `weights_kind` refuses.
    """
    if not path.is_dir():
        return path
    named = [path / name for name in (*IN_FOLDERS, *names) if (path / name).is_file()]
    found = named[:1] or [inside for inside in path.iterdir() if inside.suffix in SUFFIXES]
    return found[0] if len(found) == 1 else path


def not_read(folder: Path, chosen: Path, names: Iterable[str] = ()) -> list[str]:
    """Return the names of the other files in a folder that are called as weights of the network are, sorted.

    names: as in `weights_in`, which chose a file.
    """
    if not folder.is_dir() or chosen == folder:
        return []
    return sorted(name for name in {*IN_FOLDERS, *names} if (folder / name).is_file() and name != chosen.name)


def files_of(path: Path) -> dict[Path, frozenset[str]]:
    """Return the files that an index lists, each with the names of its tensors; any other file itself, without names.

    Raises:
        RunError: a part is missing or not listed.
    """
    return listed_parts(path) if path.is_file() and _is_index(path, _head(path)) else {path: frozenset()}


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file, or of the digests of all parts that an index lists.

    Raises:
        OSError: a file cannot be read.
        RunError: a part is missing or not listed.
    """
    digests = [file_digest(file) for file in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def weights_kind(path: Path) -> Kind:
    """Return the storage format of a weights file.

    Raises:
        RunError: the file does not exist, or is not a weights file; the message names what it is.
    """
    if is_one_of_several(path) and path.is_file():
        raise _refusal(path, "it is one part of several", "give their index, *.index.json, or its folder")
    kind = kind_of_file(path)
    if kind == "index":
        for part in listed_parts(path):
            if kind_of_file(part) == "index":
                raise _refusal(path, f"it lists {part.name}, which is an index too", AGAIN)
    return kind


def kind_of_file(path: Path) -> Kind:
    """Return the storage format of one file, which may be a part of weights.

    Raises:
        RunError: the file does not exist, or is not a weights file; the message names what it is.
    """
    size, head = _size(path), _head(path)
    if _is_index(path, head):
        return "index"
    if head[LENGTH : LENGTH + 1] == b"{" and (header := _header_length(head)) <= LONGEST_HEADER:
        return _complete_safetensors(path, header, size)
    if head.startswith(ZIP):
        return _torch_archive(path)
    if head.startswith(PICKLE):
        return "pickle"
    raise _refusal(path, *_foreign(head))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _is_index(path: Path, head: bytes) -> bool:
    """By its key in the first bytes, or by its name, since metadata of any length may precede that key."""
    named = path.name.endswith(INDEX)
    return head.lstrip().startswith(b"{") and (named or f'"{WEIGHT_MAP}"'.encode() in head)


def _foreign(head: bytes) -> tuple[str, str | None]:
    """Return what a file with these first bytes is, and what to do about it."""
    if not head:
        return "it is empty", AGAIN
    for marks, remedy in ((PACKED, UNPACK), (MARKS, None)):
        for mark, what in marks.items():
            if head.startswith(mark):
                return f"it is {what}", remedy
    if head[TAR_AT:].startswith(TAR):
        return "it is a tar archive", UNPACK
    return _text(head)


def _size(path: Path) -> int:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)
        remedy = f"give a file in it: {', '.join(inside[:5])}" if inside else "give the path of a file"
        if any(is_one_of_several(path / name) for name in inside):
            remedy = f"download the index of these parts too, such as {INDEXES[0]}"
        raise RunError("not a weights file: it is a folder", where=path, expected=EXPECTED, remedy=remedy)
    if not path.is_file():
        raise RunError("no such weights file", where=path, remedy="give imagenet, random or the path of a file")
    return path.stat().st_size


def _header_length(head: bytes) -> int:
    length: int = struct.unpack("<Q", head[:LENGTH])[0]
    return length


def _torch_archive(path: Path) -> Kind:
    """Check an archive: files of `torch.save` contain data.pkl and no code, those of TorchScript contain both."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise _refusal(path, "it is a zip archive that is cut short or damaged", AGAIN) from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise _refusal(
            path, "it is a TorchScript program", "save the state_dict() of the model that torch.jit.load gives"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise _refusal(path, f"it is a zip archive of other files ({', '.join(names[:3])})", UNPACK)
    return "zip"


def _complete_safetensors(path: Path, header: int, size: int) -> Kind:
    try:
        with path.open("rb") as file:
            file.seek(LENGTH)
            entries = json.loads(file.read(header))
        end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
        needed = LENGTH + header + int(end)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
        needed = LENGTH + header  # the header is truncated or damaged; the reader reports which
    if size < needed:
        raise _refusal(path, f"it is a safetensors file that is cut short: {size} of {needed} bytes", AGAIN)
    return "safetensors"


def _text(head: bytes) -> tuple[str, str | None]:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(GIT_LFS):
        return "it is a Git LFS pointer: the weights themselves were not downloaded", "run `git lfs pull` there"
    if start[:9].lower() == b"<!doctype" or b"<html" in start[:1024].lower():
        return "it is an HTML page, which the server sent in place of the weights", "download it again"
    if start[:1] in b"{[" and start:
        return "it is a JSON file", None
    try:
        shown = head.decode("utf-8", errors="strict") if len(head) < HEAD else head.decode("utf-8", errors="ignore")
    except UnicodeDecodeError:
        shown = ""
    line = shown.strip().partition("\n")[0].strip()
    if line and line.isprintable():
        return f"it is a text file that begins {line[:40]!r}", None
    return "its first bytes match no known format", None


def _refusal(path: Path, what: str, remedy: str | None) -> RunError:
    return RunError(f"not a weights file: {what}", where=path, expected=EXPECTED, remedy=remedy)


def check_archive(path: Path) -> None:
    """Compare what is in an archive of torch with its checksums, which torch does not look at when it loads them.

    torch.serialization.set_crc32_options(False) writes none that are right: then there is nothing to compare with.

    Raises:
        RunError: some entries do not match theirs.
    """
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED]
        damaged = [entry.filename for entry in entries if not _is_whole(archive, entry)]
    if damaged and len(damaged) < len(entries):
        raise RunError(
            f"damaged: {damaged[0]} in it does not match its checksum", where=path, remedy="download or copy it again"
        )


def _is_whole(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(entry) as file:
            while file.read(PIECE):
                pass
    except (zipfile.BadZipFile, OSError, EOFError, ValueError):
        return False
    return True

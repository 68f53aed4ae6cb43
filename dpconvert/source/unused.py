"""Notes on unread files of a source: archives, other formats, and images or annotations without a pattern."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from dpconvert.image.unread import unread
from dpconvert.plural import counted

if TYPE_CHECKING:
    from dpconvert.source.files import Source

COMPRESSED = re.compile(
    r"(?i)\.(tgz|tbz2?|txz|tzst|tar\.(?!idx$|md5$|sha\d+$|asc$|sig$|json$|txt$)\w+|7z|rar|(7z|zip)\.\d{3})$"
)
INNER = re.compile(r"(?i)\.(zip|tar|gz|bz2|xz|zst|z\d\d)$")
SUFFIX = re.compile(r"(?i)(\.ome)?\.[a-z0-9]{1,11}$")
READ = re.compile(
    r"\.(png|jpe|jpe?g|tiff?|qptiff|btf|tf[28]|bmp|gif|webp|jp2|j2[kc]|jp[fx]|p[bgnp]m|pam|svs|ndpi|mrxs|scn|bif|svslide|vms|vmu|dcm|czi|zarr|ozx|vsi|np[yz]|h5|hdf5?|parquet)$"
)
UNREAD = re.compile(r"\.(lif|nd2|oi[bf]|zvi|i2?syntax|stk|lsm|hei[cf]|avif|jxl|dng|psd|tga|exr)$")
WORDS = re.compile(r"\.(xml|(?:geo|nd)?json|(?:geo)?jsonl|ndpa|annotations|csv|tsv|xls[xmb]?|ods|mat|qpdata)$")
ZARR_IN_ARCHIVE = re.compile(r"(?i)(.*?\.(?:zip|tar|tgz|tar\.\w+|7z))/(?:.*(?<=\.zarr\.zip/)|.*\.zarr/|.*zarr\.json$)")
STACKS = re.compile(r"(?i)\.(?:h5|hdf5|np[yz])(?=\.gz$)")  # arrays, which are read where they are compressed
SHEETS = re.compile(r"\.(xls|xlsb|ods|numbers|gsheet|sav|dta|rds|rdata|accdb|mdb|docx?|pdf)$")  # that hold tables
TOLD = 5  # suffixes


def notes(source: Source, used: Collection[str]) -> list[str]:
    """Return notes on files that no pattern of the manifest matches and that are not in `used`."""
    beside = [name for name in unmatched(source) if name not in used]
    archives = archives_of(source, beside)
    found = [_archives(archives)] if archives else []
    if packed := _packed_zarr(beside):
        found.append(f"not read: OME-Zarr folders in {counted(len(packed), 'archive')}; unpack {packed[0]}")
    for suffixes, what, of, why in (
        (READ, "image", "", "matched by no pattern of [files]"),
        (UNREAD, "image", "", "nothing here reads these formats: export them as TIFF or PNG"),
        (WORDS, "file", " of annotations or tables", "matched by no pattern of [files]"),
    ):
        names = [name for name in beside if suffixes.search(suffix(name)) and unread(name) is None]  # slides are noted
        if names:
            found.append(f"not used: {counted(len(names), what)}{of} ({by_suffix(names)}), the first {names[0]}: {why}")
    return found


def unmatched(source: Source) -> list[str]:
    """Return the files that no pattern of the manifest matches, in name order; a slide of several files is one."""
    patterns = [re.compile(kind.pattern) for kind in source.manifest.files.values()]
    slides, parts = source.slides.slides, source.slides.parts
    known = {name: slides[name].names if name in slides else (name,) for name in source.sizes if name not in parts}
    return [
        name for name, called in known.items() if not any(pattern.search(one) for pattern in patterns for one in called)
    ]


def groups(source: Source) -> dict[str, list[str]]:
    """Return a mapping from suffix to its files that no pattern matches; the most frequent suffix comes first."""
    found: dict[str, list[str]] = {}
    for name in unmatched(source):
        found.setdefault(suffix(name) or "without suffix", []).append(name)
    return dict(sorted(found.items(), key=lambda group: -len(group[1])))


def may_be_read(name: str) -> bool:
    """Whether a file is an image, an array or an archive by its suffix."""
    return bool(READ.search(suffix(name)) or COMPRESSED.search(name) or INNER.search(name))


def archives_of(source: Source, names: Iterable[str]) -> list[str]:
    """Return the archives among `names` that are not read in place, except those unpacked in a folder of their name."""
    found = [name for name in names if (COMPRESSED.search(name) or INNER.search(name)) and not STACKS.search(name)]
    folders = {name[:at] for name in source.sizes if found for at in _slashes(name)}
    return [name for name in found if not {INNER.sub("", name), COMPRESSED.sub("", name)} & folders]


def by_suffix(names: Iterable[str]) -> str:
    """Return the number of files by suffix, the most frequent first: '3 .webp, 1 .czi'."""
    counts = Counter(map(suffix, names))
    parts = [f"{count} {ending or 'without suffix'}" for ending, count in counts.most_common(TOLD)]
    rest = len(counts) - len(parts)
    return ", ".join(parts) + (f", {rest} other kinds" if rest else "")


def suffix(name: str) -> str:
    """Return the lower-case suffix of a file's name with its dot, '' for none; of x.h5.gz, '.h5'."""
    if stack := STACKS.search(name):
        return stack[0].lower()
    found = SUFFIX.search(name.rpartition("/")[2])
    return "" if found is None else "." + found[0].lower().rpartition(".")[2]


def remedy(archives: list[str]) -> str:
    """Return the advice for archives that are not read in place."""
    inside = re.match(r"(?i)(.*?\.(?:zip|tar))/(.+)", archives[0])
    what = f"unpack {inside[1]}, and then {inside[2]}" if inside else f"unpack {archives[0]}"
    seven = ", or `pip install 'dpconvert[7z]'`" if archives[0].lower().endswith(".7z") else ""
    return f"{what}{seven}: archives of this kind are not read"


def tables_of(names: Iterable[str]) -> str:
    """Return the advice for tables in a format that is not read; '' if there is none."""
    found = [name for name in names if SHEETS.search(suffix(name))]
    return f"save {found[0]} as CSV in UTF-8, or as .xlsx: its format is not read" if found else ""


def zarr_out_of_place(source: Source) -> str:
    """Return the advice for an OME-Zarr folder that cannot be recognized as one slide; '' if there is none."""
    if packed := _packed_zarr(source.sizes):
        return f"unpack {packed[0]}: an OME-Zarr folder in an archive is not read"
    marks = (path for mark in (".zgroup", "zarr.json") for path in source.root.rglob(mark))
    folders = [path.parent.relative_to(source.root).as_posix() for path in marks]
    name = min((name for name in folders if ".zarr" not in name.lower()), key=len, default=".")
    return f"add .zarr to the name of the folder {name}: an OME-Zarr is recognized by it" if name != "." else ""


def _packed_zarr(names: Iterable[str]) -> list[str]:
    """Return the archives that hold OME-Zarr folders."""
    return list(dict.fromkeys(found[1] for name in names if (found := ZARR_IN_ARCHIVE.match(name))))


def _archives(names: list[str]) -> str:
    line = f"not read: {counted(len(names), 'archive')}, the first {names[0]}; {remedy(names)}"
    return f"{line} (if its files are already present, move it away)"


def _slashes(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "/"]

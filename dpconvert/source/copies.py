"""Find files that a source holds twice: in an archive and beside it, in two archives, or in a folder and its copy.

Two folders (or archives) are copies if every file of one that matches a pattern of the manifest also exists in the
other, at the same place, with the same size and content, and with the same class, group and split; masks and other
files about images must be about images of one name, too. Other equal files are genuine data, such as blank tiles of two
patients, empty masks, or the masks of one field in two stains.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from dpconvert.manifest.model import Manifest
from dpconvert.plural import counted
from dpconvert.source import packed

KNOWN = "class", "group", "split"  # named groups in which copies agree
IMAGES = "images", "slides"  # kinds of files whose names may take in the folder of a copy
MOST_ALIKE = 8  # files of one name and size that are compared before their contents are read
LEAST = 2  # different contents of a folder that counts as a copy where no archive is involved
SHOWN = 3

Pair = tuple[str, str]  # a file that is read and its copy, or the folders of both


@dataclass(frozen=True)
class ComparedFiles:
    """The files to compare: name -> bytes.

    packed: whether a file lies in an archive. content: a value that is equal for equal files of one size; it may read
    the files.
    """

    manifest: Manifest
    sizes: Mapping[str, int]
    packed: Callable[[str], bool]
    content: Callable[[str], Hashable]

    def fields_of(self, name: str) -> tuple[str, ...]:
        """Return the kind of a file and the fields of its name; empty if no pattern matches it."""
        for kind, spec in self.manifest.files.items():
            if (found := re.search(spec.pattern, name)) is not None:
                fields = {part: text or "" for part, text in found.groupdict().items()}
                subject = "" if kind in IMAGES else fields.get("name", "").rpartition("/")[2]
                return kind, subject, *(fields.get(part, "") for part in KNOWN)
        return ()


def copies(listing: ComparedFiles) -> tuple[dict[str, str], list[str]]:
    """Return a mapping from each file to pass over to the file that is read in its place, and notes for the user."""
    alike = _alike(listing.sizes)
    fields = {name: known for some in alike for name in some if (known := listing.fields_of(name))}
    alike = [some for names in alike if len(some := [name for name in names if name in fields]) > 1]
    if not alike:
        return {}, []
    pairs: defaultdict[Pair, list[Pair]] = defaultdict(list)
    for names in alike:
        for kept, copy in _candidates(names, fields, listing):
            for folders in _shifts(kept, copy):
                pairs[folders].append((kept, copy))
    found, together = _copied(pairs, listing)
    notes = [_note(found, together)] if found else []
    return found, [*notes, *_elsewhere(alike, fields, found, listing)]


def _alike(sizes: Mapping[str, int]) -> list[list[str]]:
    """Group files of equal base name and size, if there are several."""
    found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for name, size in sizes.items():
        found[name.rpartition("/")[2], size].append(name)
    return [names for names in found.values() if len(names) > 1]


def _candidates(names: list[str], fields: Mapping[str, tuple[str, ...]], listing: ComparedFiles) -> Iterator[Pair]:
    """Yield pairs of possible copies. The file to read comes first: an unpacked one, or the less deeply nested one."""
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda name: (listing.packed(name), name.count("/"), name)):
        known = fields[name]
        groups[(known, listing.content(name)) if len(names) > MOST_ALIKE else known].append(name)
    for group in groups.values():
        yield from combinations(group, 2) if len(group) <= MOST_ALIKE else ((group[0], other) for other in group[1:])


def _shifts(kept: str, copy: str) -> Iterator[Pair]:
    """Yield the pairs of folders below which two files have the same path; nested folders give several pairs."""
    one, other = kept.split("/"), copy.split("/")
    same = next((n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), None)
    same = min(len(one), len(other)) if same is None else same
    pair = "/".join(one[:-same]), "/".join(other[:-same])
    yield pair
    if pair[1].startswith(pair[0]):
        yield from (("/".join(one[:-n]), "/".join(other[:-n])) for n in range(1, same))


def _copied(pairs: Mapping[Pair, list[Pair]], listing: ComparedFiles) -> tuple[dict[str, str], dict[Pair, int]]:
    """Return a mapping copy -> file that is read, and the number of copies by folder."""
    matched = Counter(folder for name in listing.sizes if listing.fields_of(name) for folder in _above(name))
    found: dict[str, str] = {}
    folders: dict[Pair, int] = {}
    for (kept, copy), files in sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0])):
        fresh = {other: one for one, other in files if other not in found}
        if fresh and len(files) in (matched[kept], matched[copy]) and _equal(files, listing):
            found |= fresh
            folders[kept, copy] = len(fresh)
    return found, folders


def _above(name: str) -> Iterator[str]:
    """Return every folder above a file, '' for the source itself."""
    while name:
        name = name.rpartition("/")[0]
        yield name


def _equal(files: list[Pair], listing: ComparedFiles) -> bool:
    if not all(listing.content(kept) == listing.content(copy) for kept, copy in files):
        return False
    return any(map(listing.packed, files[0])) or len({listing.content(kept) for kept, _ in files}) >= LEAST


def _note(found: Mapping[str, str], folders: Mapping[Pair, int]) -> str:
    shown = [f"those in {copy} are those in {kept or 'the source itself'}" for kept, copy in folders]
    where = ", ".join(shown[:SHOWN])
    where += f", and in {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
    first = min(found)
    lie = "lies here twice, and is" if len(found) == 1 else "lie here twice, and are"
    return f"{counted(len(found), 'file')} {lie} read once: {where}; the first: {first} is {found[first]}"


def _elsewhere(
    alike: Iterable[list[str]], fields: Mapping[str, tuple[str, ...]], found: Mapping[str, str], listing: ComparedFiles
) -> Iterator[str]:
    """Return a note on files in archives that equal files of another class, group or split."""
    rest: list[Pair] = []
    for names in alike:
        left = [name for name in names if name not in found]
        if len({fields[name] for name in left}) < 2 or not any(map(listing.packed, left)):
            continue
        seen: dict[Hashable, str] = {}
        for name in left:
            first = seen.setdefault(listing.content(name), name)
            if fields[first] != fields[name]:
                rest.append((first, name))
    if rest:
        first, other = min(rest)
        yield (
            f"{counted(len(rest), 'pair')} of equal files, in archives too, of one name but of another class, group or "
            f"split; all are read; the first: {first} and {other}"
        )


def is_file(root: Path, name: str) -> bool:
    """Whether a listed name is a separate file, not a member of an archive."""
    head, mark, _ = _archive_part(name)
    return not mark or (root / head).is_dir()


def is_unpacked(name: str, sizes: Mapping[str, int]) -> bool:
    """Whether a member of an archive also lies beside the archive, or in a folder of the archive's name."""
    head, _, member = _archive_part(name)
    if not member:
        return False
    beside = (head.rpartition("/")[0] + "/" + member).lstrip("/"), f"{packed.ANY.sub('', head)}/{member}"
    return any(sizes.get(unpacked) == sizes[name] for unpacked in beside)


def _archive_part(name: str) -> tuple[str, str, str]:
    """Return ('a/b.zip', '/', 'c.png') for 'a/b.zip/c.png'; the separator is empty if the name has no archive."""
    found = re.match(r"(.*?\.(?:zip|tar(?:\.(?:gz|bz2|xz))?|tgz|tbz2?|txz|7z))(/)(.+)$", name, re.IGNORECASE)
    return (found[1], found[2], found[3]) if found else (name, "", "")

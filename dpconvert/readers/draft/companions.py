"""Files that are called as other images, as 1_overlay.png beside 1.png: perhaps masks or copies of these."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from dpconvert.plural import counted
from dpconvert.readers.draft import naming
from dpconvert.readers.draft.tree import Tree

MANY = 0.5  # of the images without such a word


def companions(images: Sequence[str]) -> Iterator[str]:
    """What to ask of images of which most have a companion of one word in the same folder."""
    known = {name.rpartition(".")[0].casefold() for name in images}
    found = Counter[str]()
    example: dict[str, str] = {}
    for name in images:
        stem = name.rpartition(".")[0]
        parts = naming.TOKENS.split(stem.rpartition("/")[2])
        word = parts[-1]
        base = stem[: -len("".join(parts[-2:]))] if len(parts) > 2 else ""
        if base and not word.isdecimal() and base.casefold() in known and not naming.ALTERED.search(stem):
            found[word] += 1
            example.setdefault(word, name)
    others = len(known) - found.total()
    for word, count in found.items():
        if count > 1 and count >= MANY * others:
            yield (
                f"{counted(count, 'file')} such as {example[word]} are called as another image with the word {word!r}: "
                "if they are masks, overlays or other copies, exclude them in the pattern; if they are images of their "
                "own with this class, nothing need change"
            )


def copied(tree: Tree, at: int) -> Iterator[str]:
    """A folder whose images are called as those of several others, which share no name: it is perhaps no class."""
    stems = defaultdict(set)
    for name, stem in zip(tree.images, tree.stems(), strict=True):
        stems[tree.folder(name, at)].add(stem.casefold())
    for folder, of_it in stems.items():
        others = [some for other, some in stems.items() if other != folder]
        every = set().union(*others)
        if len(others) > 1 and len(every) == sum(map(len, others)) and of_it <= every and len(of_it) > 1:
            yield (
                f"The images in the folders {folder} are called as those of the other classes, as copies of these "
                "would be: if it is no class, take it out of `classes` and of the pattern; if it is one, nothing need "
                "change"
            )

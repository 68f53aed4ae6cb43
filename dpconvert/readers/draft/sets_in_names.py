"""Sets that the names of files tell, as those of train_001.png, testA_1.png or 001_val.png."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dpconvert.readers.draft import names, sets
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import table
from dpconvert.readers.layout_keys import SPLIT_NAMES

LETTER = r"[^\W\d_]"
PLACES = {  # the word of a file's name -> what finds that word, if it is one of several, at the start of a pattern
    re.compile(rf"{LETTER}+(?=[^/]*$)"): rf"(?=(?:.*/)?(?P<split>{{}})(?!{LETTER})[^/]*$)",
    re.compile(rf"(?<!{LETTER}){LETTER}+(?=\.[^./]+$)"): rf"(?=.*(?<!{LETTER})(?P<split>{{}})\.[^./]+$)",
}
MOST_WORDS = 8
ENOUGH = 0.5  # of the images


@dataclass(frozen=True)
class NamedSets:
    """Words of the names of images that tell their set, with how many images have them.

    pattern: of the images, with the named group `split`. whole: whether every image has such a word.
    """

    kind: str
    pattern: str
    counts: Counter[str]
    whole: bool

    def renamed(self) -> dict[str, str]:
        """`splits` of [layout]: words that are not the names of sets -> their set."""
        return {word: str(meaning(word)) for word in self.counts if word.lower() not in SPLIT_NAMES}


def with_sets_in_names(survey: Survey, found: Draft) -> Draft:
    """The draft with the sets that the names of images tell; with a question if not all of them do."""
    ways = list(_in_names(survey, found))
    if not ways:
        return found
    way = ways[0]
    words = ", ".join(f"{word} {count}" for word, count in sorted(way.counts.items()))
    if len(ways) > 1 or not way.whole:
        question = (
            f"Some images have the names of sets in theirs ({words}), which are not kept: if these are the sets of the "
            "release, name them `split` in the pattern; if not, nothing need change"
        )
        return replace(found, questions=(*found.questions, question))
    renamed = [f"splits = {table(way.renamed())}"] if way.renamed() else []
    return replace(
        found,
        files={**found.files, way.kind: (way.pattern, found.files[way.kind][1])},
        layout=(*renamed, *found.layout),
        split=sets.policy(str(meaning(word)) for word in way.counts),
        remarks=(*found.remarks, f"Sets by the names of images: {words}"),
    )


def _in_names(survey: Survey, found: Draft) -> Iterator[NamedSets]:
    """Each place in the names of a draft's images that tells several sets."""
    kind = "slides" if "slides" in found.files else "images"
    pattern = found.files[kind][0]
    images = [name for name in survey.names if re.search(pattern, name)]
    for word, finder in PLACES.items():
        words = [one[0] for image in images if (one := word.search(_file(image))) and meaning(one[0])]
        counts = Counter(words)
        several = len({meaning(one) for one in counts}) > 1
        if several and len(counts) <= MOST_WORDS and len(words) >= ENOUGH * len(images):
            listed = "|".join(sorted(counts, key=lambda one: (-len(one), one)))
            split = f"^{finder.format(listed)}{pattern.removeprefix('^')}"
            yield NamedSets(kind, split, counts, len(words) == len(images))


def meaning(word: str) -> str | None:
    """The set that a word means: train, val or test, also with a letter or a number, as testA; None for another."""
    known = names.as_set(word)
    like = None if known else names.LIKE_SET.fullmatch(word)
    return known or (str(SPLIT_NAMES[like[1].lower()]) if like else None)


def _file(name: str) -> str:
    return name.rpartition("/")[2]

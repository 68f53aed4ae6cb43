"""Sets that the names of files tell, as those of train_001.png, testA_1.png or 001_val.png."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from dpconvert.readers.draft import naming, sets
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import table
from dpconvert.readers.layout_keys import SPLIT_NAMES

LETTER = r"[^\W\d_]"
WORD = re.compile(rf"{LETTER}+")
FINDER = rf"(?=(?:.*/)?[^/]*?(?<!{LETTER})(?P<split>{{}})(?!{LETTER})[^/]*$)"  # at the start of a pattern
MOST_WORDS = 8
ENOUGH = 0.5  # of the images


@dataclass(frozen=True)
class NamedSets:
    """Words of the names of images that tell their set, with how many images have them.

    pattern: of the images, with the named group `split`. whole: whether every image has one such word.
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
    told = _in_names(survey, found)
    if told is None:
        return found
    words = ", ".join(f"{word} {count}" for word, count in sorted(told.counts.items()))
    if not told.whole:
        question = (
            f"Some images have the names of sets in theirs ({words}), which are not kept: if these are the sets of the "
            "release, name them `split` in the pattern; if not, nothing need change"
        )
        return replace(found, questions=(*found.questions, question))
    renamed = [f"splits = {table(told.renamed())}"] if told.renamed() else []
    return replace(
        found,
        files={**found.files, told.kind: (told.pattern, found.files[told.kind][1])},
        layout=(*renamed, *found.layout),
        split=sets.policy(str(meaning(word)) for word in told.counts),
        remarks=(*found.remarks, f"Sets by the names of images: {words}"),
    )


def _in_names(survey: Survey, found: Draft) -> NamedSets | None:
    """The sets in the names of a draft's images; None if few of them name one, or all the same one."""
    kind = "slides" if "slides" in found.files else "images"
    pattern = found.files[kind][0]
    of_images = [
        [word for word in WORD.findall(naming.stem(name)) if meaning(word)]
        for name in survey.names
        if re.search(pattern, name)
    ]
    counts = Counter(word for words in of_images for word in words)
    named = sum(map(bool, of_images))
    several = len({meaning(word) for word in counts}) > 1
    if not several or len(counts) > MOST_WORDS or named < ENOUGH * len(of_images):
        return None
    listed = "|".join(sorted(counts, key=lambda word: (-len(word), word)))
    split = f"^{FINDER.format(listed)}{pattern.removeprefix('^')}"
    return NamedSets(kind, split, counts, all(len(words) == 1 for words in of_images))


def meaning(word: str) -> str | None:
    """The set that a word means: train, val or test, also with a letter or a number, as testA; None for another."""
    known = naming.as_set(word)
    like = None if known else naming.LIKE_SET.fullmatch(word)
    return known or (str(SPLIT_NAMES[like[1].lower()]) if like else None)

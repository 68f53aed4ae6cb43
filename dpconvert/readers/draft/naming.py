"""What names of files and folders say, as far as they say one thing only: class, set, patient or slide."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from dpconvert.annotations.points import LABELS
from dpconvert.readers.layout_keys import SPLIT_NAMES

Role = Literal["constant", "split", "class", "id", "unclear", "passed over"]
OF_SETS = r"set|data|images?|imgs?|split|samples?|folder|(?:19|20)\d\d"  # train2017: of COCO
SET_NAME = re.compile(rf"(?i)({'|'.join(SPLIT_NAMES)})[-_ ]?(?:{OF_SETS})?")
LIKE_SET = re.compile(rf"(?i)({'|'.join(SPLIT_NAMES)})[-_ ]?[a-z0-9]{{1,2}}")  # testA, test_2
OF_NNUNET = re.compile(r"(?i)(?:images|labels)(tr|va?l?|ts)")
NNUNET = {"tr": "train", "v": "val", "va": "val", "vl": "val", "val": "val", "ts": "test"}
PASSED_OVER = re.compile(r"(?i)fold[-_ ]?\d+|\d+(\.\d+)?x|x\d+|level[-_ ]?\d+")
NO_CLASSES = re.compile(
    r"(?i)(raw|original|processed|cropped|source|images?|imgs?|images?|patches|tiles|crops|data|masks?|labels?|annotations?|"
    r"classification|detection|segmentation|points?|he|h&e|ihc|png|jpe?g|tiff?|bmp)s?"
)
OF_MASKS = re.compile(r"(?i)(masks?|labels?|gt|ground[-_ ]?truths?|annotations?|seg|segmentations?)(?:t[rs])?")
PEOPLE = (
    r"patient(?:in|e)?|pa[cz]iente|pat|case|caso|fall(?=$|[-_ ]?(?:nr|no|nummer|id|\d))|subject|sujeto?|donor|"
    r"participant|proband(?:in)?|患者|病人|病例|症例"
)
MARK = re.compile(rf"(?i)(?<![A-Za-z])(?P<what>{PEOPLE}|slide|wsi|specimen|biopsy)[-_ ]?(?:id[-_ ]?)?[A-Za-z]?\d+")
TCGA = r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}"
ARCHIVE = re.compile(r"(?i)(?<=[^/.])\.(?:zip|7z|tgz|tar(?:\.(?:gz|bz2|xz))?)$")
TOKENS = re.compile(r"([_\-. ]+)")
GRADE = re.compile(r"(?i)(?:(?:grade|isup|gleason|stage|pattern)[-_ ]?[0-6]|g[1-4])")  # others may number patients
ALTERED = re.compile(
    r"(?i)(?:[._ -](?:[hv]?[-_ ]?flip(?:ped)?|rot(?:ated?|ation)?[-_ ]?\d*|aug\w*|mirror(?:ed)?|copy|lr|ud|jitter\w*|"
    r"blur\w*|noise\w*)\d*|\.rf\.[0-9a-z]+)+$"
)
MOST_CLASSES = 50
MOST_IN_A_NAME = 20
STEP = 8  # numbers that are all multiples of so much are coordinates


@dataclass(frozen=True)
class FolderLevel:
    """One level of folders, or one part of the files' names: which values it has, and what it says.

    suffix: the ending of archives, if all are of one kind, which is no part of the values.
    """

    role: Role
    values: tuple[str, ...]
    suffix: str = ""


@dataclass(frozen=True)
class NameGroup:
    """What keeps images together: a regular expression of it in a file's stem, what it is, and why it is taken."""

    expression: str
    what: str
    count: int
    example: str


def as_set(text: str) -> str | None:
    """Return train, val or test if a folder or file has such a name, as train, test_images or nnU-Net's imagesTr."""
    if found := SET_NAME.fullmatch(text):
        return SPLIT_NAMES[found[1].lower()]
    of_nnunet = OF_NNUNET.fullmatch(text)
    return NNUNET[of_nnunet[1].lower()] if of_nnunet else None


def like_sets(values: Iterable[str]) -> bool:
    """Whether all are called as sets, perhaps with a letter or a number, as train, testA and testB are."""
    return all(as_set(value) or LIKE_SET.fullmatch(value) for value in values)


def level(values: Iterable[str]) -> FolderLevel:
    """What a level says by all its values, one an image."""
    every = list(values)
    found = {match[0] if (match := ARCHIVE.search(value)) else "" for value in set(every)}
    suffix = found.pop() if len(found) == 1 else ""
    every = [value.removesuffix(suffix) for value in every]
    distinct = tuple(sorted(set(every), key=natural))
    return FolderLevel(_role(every, distinct), distinct, suffix)


def _role(every: list[str], distinct: tuple[str, ...]) -> Role:
    if len(distinct) == 1:
        return "constant"
    if all(map(as_set, distinct)):
        return "split"
    if like_sets(distinct):
        return "unclear"
    if all(map(PASSED_OVER.fullmatch, distinct)) or all(map(NO_CLASSES.fullmatch, distinct)):
        return "passed over"
    if any(map(OF_MASKS.fullmatch, distinct)):  # beside images, whatever their folder is called
        return "unclear"
    if list(distinct) == [str(n) for n in range(len(distinct))] and len(distinct) <= 10:
        return "class"  # 0, 1, ...: numbers of classes; those of patients begin at 1
    if all(map(GRADE.fullmatch, distinct)) and len({re.sub(r"\d", "", value).lower() for value in distinct}) == 1:
        return "class"
    numbered = [value for value in distinct if re.search(r"\d", value)]
    shapes = {re.sub(r"\d+", "#", value) for value in numbered}
    long = all(re.search(r"\d{3}", value) for value in distinct)
    if len(numbered) == len(distinct) and (long or len(shapes) <= max(1, len(distinct) // 3)):
        return "id"
    return "class" if len(distinct) <= min(MOST_CLASSES, max(len(every) // 2, 2)) else "unclear"


def escaped(text: str) -> str:
    """Escape a text for a regular expression, as legibly as possible."""
    return re.sub(r"\\([ \-#&~])", r"\1", re.escape(text))


def natural(text: str) -> tuple[int, float, str]:
    """Sort key that puts whole numbers first, in numerical order."""
    return (0, int(text), text) if re.fullmatch(r"\d{1,15}", text) else (1, 0, text)


def group_in(stems: Sequence[str], classes: Sequence[str] = ()) -> NameGroup | None:
    """What in these names tells patients or slides, the coarsest that is not a class; None where nothing does."""
    for found in (_known(stems, TCGA, "patient"), _marked(stems), _first_number(stems)):
        if found is not None and not follows(_values(stems, found.expression), classes):
            return found
    return None


def altered_in(stems: Sequence[str]) -> NameGroup | None:
    """What names of altered copies have in common with their image, as P1_flip and P1_rot90 do; None without copies."""
    bases = {stem: ALTERED.sub("", stem) for stem in stems}
    often = Counter(bases.values())
    endings = sorted({stem[len(base) :] for stem, base in bases.items() if base != stem and often[base] > 1})
    if not endings:
        return None
    listed = r"\.rf\.[0-9a-zA-Z]+" if all(ending.startswith(".rf.") for ending in endings) else ""
    listed = listed or "|".join(map(escaped, endings))
    example = next(base for base, count in often.items() if count > 1)
    return NameGroup(f"^(?:.+?)(?=(?:{listed})?$)", "image", len(often), example)


def _values(stems: Sequence[str], expression: str) -> list[str]:
    pattern = re.compile(expression)
    return [found[0] if (found := pattern.search(stem)) else "" for stem in stems]


def follows(groups: list[str], classes: Sequence[str]) -> bool:
    """Whether the class says the group, so that no class could be divided."""
    of_class = defaultdict(set)
    for group, label in zip(groups, classes, strict=False):
        of_class[label].add(group)
    return len(of_class) > 1 and all(len(found) == 1 for found in of_class.values())


def _known(stems: Sequence[str], expression: str, what: str) -> NameGroup | None:
    values = _values(stems, expression)
    if not values or not all(values) or len(set(values)) < 2:
        return None
    return NameGroup(expression, what, len(set(values)), values[0])


def _marked(stems: Sequence[str]) -> NameGroup | None:
    """A word such as patient or slide, and a number."""
    found = [MARK.search(stem) for stem in stems]
    if not found or any(one is None for one in found):
        return None
    words = {one["what"].lower() for one in found if one}
    if len(words) > 1:
        return None
    (word,) = words
    what = "patient" if re.fullmatch(PEOPLE, word) else "slide"
    return _known(stems, rf"(?i:{word})[-_ ]?(?i:id[-_ ]?)?[A-Za-z]?\d+", what)


def _first_number(stems: Sequence[str]) -> NameGroup | None:
    """The beginning of the names up to the first part that numbers something several images share."""
    parts = [TOKENS.split(stem) for stem in stems]  # part, separator, part, ...
    least = min((len(part) for part in parts), default=0)
    for at in range(0, least - 2, 2):
        values = {part[at] for part in parts}
        if like_sets(values):
            continue
        if len(values) > 1 and all(re.search(r"\d", value) for value in values):
            whole = Counter("".join(part[: at + 1]) for part in parts)
            if not 1 < len(whole) < len(stems) or _is_coordinate(values):
                return None
            expression = "^" + _expression([part[: at + 1] for part in parts])
            return NameGroup(expression, "group", len(whole), next(iter(whole)))
    return None


def _is_coordinate(values: Iterable[str]) -> bool:
    numbers = [int(value) for value in values if value.isdecimal()]
    return len(numbers) == len(list(values)) and math.gcd(*numbers) >= STEP


def _expression(parts: list[list[str]]) -> str:
    """A regular expression of the beginnings of names: what is equal in all of them as it stands."""
    columns = list(zip(*parts, strict=True))
    return "".join(
        escaped(column[0]) if len(set(column)) == 1 else r"[^/_\-. ]+" if at % 2 == 0 else r"[_\-. ]+"
        for at, column in enumerate(columns)
    )


def class_in(stems: Sequence[str]) -> list[tuple[str, Counter[str]]]:
    """Parts of file names that may be classes: an expression with the group `class`, and how many images of each."""
    parts = [TOKENS.split(stem) for stem in stems]
    least = min((len(part) for part in parts), default=0)
    found = []
    for at in range(0, least, 2):
        values = Counter(part[at] for part in parts)
        named = at >= 2 and {part[at - 2].lower() for part in parts} <= set(LABELS) and len(values) > 1
        if named or _is_word(values, len(stems)):
            before = _expression([part[:at] for part in parts]) if at else ""
            of_class = "|".join(escaped(value) for value in sorted(values, key=natural))
            found.append((f"^{before}(?P<class>{of_class})(?![^/_\\-. ])", values))
            if named:
                return found[-1:]
    return found


def _is_word(values: Counter[str], number: int) -> bool:
    return (
        1 < len(values) <= min(MOST_IN_A_NAME, number // 2)
        and all(re.fullmatch(r"[^\W\d]+", value) for value in values)
        and not like_sets(values)
        and not any(map(OF_MASKS.fullmatch, values))
        and not all(map(NO_CLASSES.fullmatch, values))
    )


def stem(name: str) -> str:
    """The name of a file without its folder and extension."""
    return PurePosixPath(name).stem

"""Pieces of TOML, and a draft as the text of a manifest with comments."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from dpconvert.manifest.unfinished import NOT_READY
from dpconvert.plural import counted
from dpconvert.readers.draft.survey import Draft

WIDTH = 118
SHARE = "share = [0.6, 0.2, 0.2]  # train, val, test, by groups"
ALONE = (
    "Nothing names the patient or slide, so every image is its own group. If several images of one patient are here, "
    "they may be divided between train and test, and scores will be too good: "
)
IN_NAMES = "name the patient in the pattern below, as (?P<group>...)."


def quoted(text: str) -> str:
    """Format a text as a basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def literal(pattern: str) -> str:
    """A regular expression as a literal string, in which backslashes stand as they are."""
    plain = pattern.replace("'", r"\x27")
    if any(not letter.isprintable() for letter in plain):
        return quoted(pattern)
    return f"'{plain}'"


def key(text: str) -> str:
    """Format a key, quoted if necessary."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else quoted(text)


def strings(values: Iterable[str]) -> str:
    """Format a list of texts."""
    return f"[{', '.join(map(quoted, values))}]"


def table(pairs: Mapping[str, str]) -> str:
    """An inline table of texts."""
    return "{" + ", ".join(f"{key(name)} = {quoted(value)}" for name, value in pairs.items()) + "}"


def comment(text: str) -> list[str]:
    """Lines of a comment."""
    return [f"# {line}" for line in textwrap.wrap(printed(text), WIDTH, break_long_words=False, break_on_hyphens=False)]


def printed(text: str) -> str:
    """Make a text safe for a comment."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def reasons(draft: Draft) -> tuple[str, ...]:
    """Why images are grouped so."""
    return draft.why or (ALONE + IN_NAMES,)


def page(draft: Draft, task: str, folder: str) -> str:
    """Return the text of the whole manifest."""
    return "\n".join(_lines(draft, task, folder)).rstrip() + "\n"


def _lines(draft: Draft, task: str, folder: str) -> Iterator[str]:
    yield from comment(f"A draft by `dpconvert init`, of what lies in {folder}")
    for remark in draft.remarks:
        yield from comment(remark)
    if draft.questions:
        yield "#"
        yield f"{NOT_READY} Settle what is unclear, then delete this line:"
        for number, question in enumerate(draft.questions, start=1):
            first, *rest = comment(question)
            yield f"# {number}. {first[2:]}"
            yield from (f"#    {line[2:]}" for line in rest)
    yield "#"
    yield f"task = {quoted(task)}"
    yield f"shape = {quoted(draft.shape)}"
    yield f"kind = {quoted(draft.kind)}"
    yield from _classes(draft)
    yield '# organ = "breast"'
    yield '# stain = "H&E"'
    yield "# mpp = 0.25                # micrometres per pixel, where the files state none"
    yield ""
    yield "[group]"
    for reason in reasons(draft):
        yield from comment(reason)
    yield f"kind = {quoted(draft.group)}"
    for kind, (pattern, about) in draft.files.items():
        yield ""
        yield f"[files.{kind}]"
        yield from comment(about)
        yield f"pattern = {literal(pattern)}"
    for name, lines in (("layout", draft.layout), ("rule", draft.rule), ("split.strict", draft.split or (SHARE,))):
        if lines:
            yield ""
            yield f"[{name}]"
            yield from lines
    if draft.dense:
        yield ""
        yield from draft.dense
    yield ""
    yield "# [licence]"
    yield '# name = "CC BY 4.0"'
    yield "# open = true"


def _classes(draft: Draft) -> Iterator[str]:
    if not draft.classes:
        return
    numbers = ", ".join(f"{name} {count}" for name, count in draft.classes.items() if count)
    if numbers:
        yield from comment(f"Found, {draft.of}: {numbers}")
    yield f"classes = {strings(draft.classes)}  # in label order: 0, 1, ..."


def some(values: Iterable[str], most: int = 8) -> str:
    """The first values, and how many more there are."""
    listed = list(values)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def numbers(counts: Mapping[str, int], noun: str) -> str:
    """'benign (30 images), malignant (48 images)'."""
    return some(f"{name} ({counted(count, noun)})" for name, count in counts.items())

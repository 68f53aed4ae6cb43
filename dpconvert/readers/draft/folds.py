"""Columns that number the folds of a cross-validation: they are no labels, and no sets until somebody says which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from dpconvert.names import WHOLE
from dpconvert.readers.draft import naming
from dpconvert.readers.draft.listings import Listing, listings
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import quoted, some

FOLDS = re.compile(r"(?i)(?:^|[^a-z])(?:k|cv|kf)?[-_ ]?(?:folds?|split|partition|set)(?:$|[^a-z])")
MOST = 20


def column(table: Listing) -> str:
    """The column that numbers folds; '' if there is none, or several."""
    found = [name for name in table.rows[0] if FOLDS.search(name) and name not in table.columns and _are(table, name)]
    return found[0] if len(found) == 1 else ""


def _are(table: Listing, name: str) -> bool:
    values = set(table.values(name)) - {""}
    return 1 < len(values) <= MOST and all(map(WHOLE.fullmatch, values))


def unused(survey: Survey, found: Draft) -> Iterator[str]:
    """What to say of columns of folds that a draft does not use."""
    if "sets" in found.files or any(line.startswith("official") for line in found.split):
        return
    for table in listings(survey)[0]:
        if by := column(table):
            counts = sorted(Counter(filter(None, table.values(by))).items(), key=lambda item: naming.natural(item[0]))
            shown = some((f"{value} {count}" for value, count in counts), 6)
            yield (
                f"The column {by!r} of {table.file} numbers folds ({shown}), and nothing says which of them are train, "
                f"val and test. To keep them, {_how(table, by, found, counts[0][0], counts[-1][0])}, and "
                "`official = true` under [split.strict]; if they need not be kept, nothing need change"
            )


def _how(table: Listing, by: str, found: Draft, first: str, last: str) -> str:
    which = f'splits = {{"{first}" = "train", ..., "{last}" = "test"}}'
    if found.shape == "table":
        return f"say split = {quoted(by)} and {which} in [layout]"
    image = "".join(table.columns) if len(table.columns) == 1 else "..."
    sets = f"sets = {{image = {quoted(image)}, split = {quoted(by)}}}"
    return f"let [files.sets] match {table.file}, and say {sets} and {which} in [layout]"

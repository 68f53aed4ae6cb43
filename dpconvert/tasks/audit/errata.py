"""The findings of an audit as entries for `[[errata]]` of a manifest, which leave the samples out of a conversion."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator

import numpy as np

from dpconvert import __version__
from dpconvert.card import SPLITS
from dpconvert.errors import ShardError, printable
from dpconvert.shards.index import read_index
from dpconvert.source.record import Box, sample_name
from dpconvert.tasks.audit.findings import Audit, Same, SamplePair
from dpconvert.tasks.sample_files import read_sample

RELATION: dict[Same, str] = {
    "file": "same bytes as",
    "pixels": "same pixels as",
    "looks": "looks like",
    "features": "features like",
}
DUPLICATES = "duplicates", "the same image is in another split"
CONTRADICTIONS = "contradictions", "the same pixels have two labels"


def errata(audit: Audit) -> str:
    """The entries as TOML, a section for each task; '' if there is nothing to leave out.

    Of the same image in two splits, the copy in the training set (else in the validation set) is left out. Of equal
    pixels with two labels, both are: nothing shows which label is correct.

    Raises:
        ShardError: a shard changed since the audit.
    """
    return "\n".join(line for task in range(len(audit.samples.cards)) for line in _of_task(audit, task))


def _of_task(audit: Audit, task: int) -> Iterator[str]:
    labels = {sample: pair for pair in audit.labels for sample in (pair.one, pair.other)}
    splits = {_expendable(audit, pair): pair for pair in audit.splits}
    splits = {sample: pair for sample, pair in splits.items() if sample not in labels}
    for (name, reason), found in ((DUPLICATES, splits), (CONTRADICTIONS, labels)):
        of_task = {sample: pair for sample, pair in found.items() if audit.samples.task[sample] == task}
        if of_task:
            yield from _entry(audit, task, name, reason, of_task)


def _entry(audit: Audit, task: int, name: str, reason: str, found: dict[int, SamplePair]) -> Iterator[str]:
    of = audit.samples.cards[task].task
    yield f"# {printable(of)}: append this entry to the manifest of the source."
    yield f'[[errata]]\nname = "{name}"\ntask = {_quoted(of)}'
    yield f'reason = "{reason}"\ncitation = "dpconvert {__version__} audit"'
    yield "samples = ["
    named = _names(audit, task, found)
    for sample, pair in sorted(found.items(), key=lambda item: named[item[0]]):
        other = audit.described(pair.other if sample == pair.one else pair.one)
        why = f"{RELATION[pair.same]} {other['key']} in {other['split']}, labelled {other['label']}"
        yield f"  {_quoted(named[sample])},  # {printable(why)}"
    yield "]\n"


def _expendable(audit: Audit, pair: SamplePair) -> int:
    """The sample of a pair in two splits without which the sets for scoring stay complete."""
    return min(pair.one, pair.other, key=lambda sample: SPLITS.index(audit.samples.split[sample]))


def _names(audit: Audit, task: int, samples: Iterable[int]) -> dict[int, str]:
    """The name of each sample as `samples` of an erratum lists it."""
    folder, card = audit.samples.folders[task], audit.samples.cards[task]
    index = read_index(folder / card.index.name)
    has_frames = any(np.any(index[name].to_numpy()) for name in ("x", "y"))
    names = {}
    for sample in samples:
        path = folder / audit.samples.shard[sample]
        try:
            with path.open("rb") as file:
                about = read_sample(file, int(audit.samples.offset[sample]), card).metadata
            frame = Box(*(int(about[name]) for name in ("x", "y", "width", "height")))
            names[sample] = sample_name(str(about["picture"]), frame if has_frames else None)
        except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
            raise ShardError(
                f"the JSON of a sample cannot be read: {error}", where=path, remedy="convert the source again"
            ) from None
    return names


def _quoted(text: str) -> str:
    """The text as a TOML string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Weights in several files, with an index that names the file of each tensor.

Hugging Face's libraries divide large weights so: `model-00001-of-00002.safetensors` and its siblings, and beside them
`model.safetensors.index.json` with `{"metadata": {...}, "weight_map": {tensor: file}}`
(huggingface_hub, `split_torch_state_dict_into_shards`). This module does not load torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from mtrain.errors import RunError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
INDEX = ".index.json"
PART = re.compile(r"(.+)-\d+-of-(\d+)(\.\w+)")
WEIGHT_MAP = "weight_map"
AGAIN = "download the whole folder again"


def listed_parts(index: Path) -> dict[Path, frozenset[str]]:
    """Return the files that an index lists, in name order, each with the names of its tensors.

    Raises:
        RunError: the index is not readable, or a file that it lists is missing, or a file of the same weights is not
            listed.
    """
    of = _weight_map(index)
    names = sorted(set(of.values()))
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise RunError(f"a part of these weights is missing: {name}", where=index, remedy=AGAIN)
    series = {(match[1], match[3]) for name in names if (match := PART.fullmatch(name))}
    for other in sorted(inside.name for inside in index.parent.iterdir()):
        match = PART.fullmatch(other)
        if match and (match[1], match[3]) in series and other not in names:
            raise RunError(f"a part of these weights is not listed in their index: {other}", where=index, remedy=AGAIN)
    return {index.parent / name: frozenset(tensor for tensor, file in of.items() if file == name) for name in names}


def check_part(part: Path, found: Collection[str], listed: Collection[str]) -> None:
    """Check that a part contains the tensors that the index lists for it, and no others.

    Raises:
        RunError: it does not; names the first tensor.
    """
    for names, what in ((set(listed) - set(found), "lacks"), (set(found) - set(listed), "has, unlisted,")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise RunError(f"not the part that the index lists: it {what} {min(names)}{more}", where=part, remedy=AGAIN)


def is_one_of_several(path: Path) -> bool:
    """Whether a file is called as one part of several."""
    match = PART.fullmatch(path.name)
    return match is not None and int(match[2]) > 1


def _weight_map(index: Path) -> dict[str, str]:
    try:
        content = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"not an index of weights files: {error}", where=index, remedy=AGAIN) from None
    of = content.get(WEIGHT_MAP) if isinstance(content, dict) else None
    if not isinstance(of, dict) or not of or not all(isinstance(name, str) and name for name in of.values()):
        raise RunError(
            "not an index of weights files", where=index, expected=f'"{WEIGHT_MAP}": {{tensor: file}}', remedy=AGAIN
        )
    return of

"""Writes `README.md`: the dataset card, with YAML metadata for the Hugging Face Hub and `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from dpconvert.card import TaskCard
from dpconvert.plural import counted
from dpconvert.shards.index import Entry
from dpconvert.shards.sidefiles.licences import OTHER, hub_name, sentence

NAME = "README.md"
SIZES = {1000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
JSON_FIELDS = {  # in the order of docs/format.md
    "task": "string",
    "source": "string",
    "label": "int64",
    "label_name": "string",
    "group": "string",
    "group_kind": "string",
    "split": "string",
    "picture": "string",
    "x": "int64",
    "y": "int64",
    "width": "int64",
    "height": "int64",
    "stored_width": "int64",
    "stored_height": "int64",
    "mpp_requested": "float64",
    "mpp_read": "float64",
    "mpp_stored": "float64",
    "stain": "string",
    "organ": "string",
}


def text(card: TaskCard, entries: Sequence[Entry]) -> bytes:
    """The file's bytes."""
    return "\n".join(["---", *_head(card, entries), "---", "", *_body(card), ""]).encode()


def _head(card: TaskCard, entries: Sequence[Entry]) -> Iterator[str]:
    """The metadata as YAML. Strings are written as JSON, which is valid YAML."""
    name = hub_name(card.licence.name)
    yield f"license: {name}"
    if name == OTHER:
        yield f"license_name: {_quoted(card.licence.name or 'not stated')}"
        if card.licence.url:
            yield f"license_link: {_quoted(card.licence.url)}"
    yield f"task_categories: [{', '.join(_categories(card))}]"
    yield f"pretty_name: {_quoted(card.title or card.task)}"
    yield f"size_categories: [{_quoted(next((t for n, t in SIZES.items() if card.samples() < n), '10M<n<100M'))}]"
    yield f"tags: [{', '.join(map(_quoted, sorted({'pathology', 'histology', 'webdataset', *_tags(card)})))}]"
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for split in card.splits:
        yield f"  - split: {split}"
        yield f"    path: {split}-*.tar"
    yield "dataset_info:"
    yield "  features:"
    yield from _features(card, entries)


def _categories(card: TaskCard) -> Iterator[str]:
    """The Hub's names of what the samples are labelled for."""
    yield "image-classification"  # the Hub has no name for images with several labels or a number
    if card.dense and card.dense.seg:
        yield "image-segmentation"
    if card.dense and card.dense.boxes:
        yield "object-detection"


def _tags(card: TaskCard) -> Iterator[str]:
    yield from (word.casefold() for word in (card.organ, card.stain) if word)


def _features(card: TaskCard, entries: Sequence[Entry]) -> Iterator[str]:
    """The columns for `datasets`, which would otherwise guess them from the first five samples."""
    for image_format in sorted({entry.format for entry in entries}):
        yield from (f"  - name: {image_format}", "    dtype: image")
    if card.target == "class":
        yield from ("  - name: cls", "    dtype:", "      class_label:", "        names:")
        for label, name in enumerate(card.classes):
            yield f"          '{label}': {_quoted(name)}"
    if card.dense and card.dense.seg:
        yield from ("  - name: seg.png", "    dtype: image")
    yield from ("  - name: json", "    struct:")
    yield from _fields(card)
    yield from ("    - name: files", "      list: string")
    for kind in ("points", "boxes"):
        if card.dense and getattr(card.dense, kind):
            yield from (f"    - name: {kind}", "      list:", "        list: float64")
    if card.dense and card.dense.instances:
        yield from ("    - name: instances", "      list:", "        list: int64")
    keys = sorted({key for text in {entry.attributes for entry in entries} for key in json.loads(text)})
    if keys:
        yield from ("    - name: attributes", "      struct:")
        for key in keys:
            yield from (f"      - name: {_quoted(key)}", "        dtype: string")
    for name in ("__key__", "__url__"):
        yield from (f"  - name: {name}", "    dtype: string")


def _fields(card: TaskCard) -> Iterator[str]:
    """The fields of the JSON that all samples of the task have."""
    for field, kind in JSON_FIELDS.items():
        if card.target == "class" or field not in ("label", "label_name"):
            yield from (f"    - name: {field}", f"      dtype: {kind}")
    if card.target == "labels":
        yield from ("    - name: labels", "      list: int64", "    - name: label_names", "      list: string")
    elif card.target == "value":
        yield from ("    - name: value", "      dtype: float64")


def _body(card: TaskCard) -> Iterator[str]:
    yield f"# {card.task}"
    yield ""
    yield f"{card.title or card.task}. {', '.join(filter(None, [card.organ, card.stain, card.kind]))}."
    yield ""
    yield f"| class | {' | '.join(card.splits)} |"
    yield f"|---|{'--:|' * len(card.splits)}"
    for label, name in enumerate(card.classes):
        yield f"| {_cell(name)} | {' | '.join(str(part.classes[label]) for part in card.splits.values())} |"
    yield f"| samples | {' | '.join(str(part.samples) for part in card.splits.values())} |"
    yield f"| {card.group_kind}s | {' | '.join(str(part.groups) for part in card.splits.values())} |"
    yield ""
    policy = card.options.get("split", card.split_policy)
    yield f"Split `{policy}` by {card.group_kind}; scored by {card.metric}; use the test set once, at the end."
    yield ""
    yield "## Licence"
    yield ""
    licence = sentence(card.licence.name, card.licence.url, card.licence.note)
    yield f"{licence}. These are the terms of the source, not of the program that converted it."
    if card.citation:
        yield from ("", "## Citation", "", card.citation)
    caveats = list(_caveats(card))
    if caveats:
        yield from ("", "## Notes", "", *(f"- {' '.join(caveat.split())}" for caveat in caveats))
    masks = ", `.seg.png` (the mask)" if card.dense and card.dense.seg else ""
    of_class = ", `.cls` (the label)" if card.target == "class" else ""
    unit = f" in {card.unit}" if card.unit else ""
    target = {"class": "", "labels": " (with `labels`)", "value": f" (with `value`{unit})"}[card.target]
    yield from (
        "",
        "## Files",
        "",
        f"WebDataset tars: for each sample an image{of_class}{masks} and `.json`{target};",
    )
    yield "`index.parquet` has a row for each sample, `task.json` describes the task. Digest of the data:"
    yield f"`{card.digest}`."


def _caveats(card: TaskCard) -> Iterator[str]:
    yield from card.notes
    for difference in card.expectations:
        reason = difference.reason or "no known reason"
        samples = counted(difference.made, "sample")
        yield f"{difference.what}: {samples}; the whole release has {difference.expected} ({reason})"
    if card.options.get("errata", "default") != "default":
        yield f"errata left out: {card.options['errata']}"
    if card.related:
        yield f"shares slides, patients or annotations with {', '.join(card.related)}"
    if card.failures:
        yield f"{counted(len(card.failures), 'sample')} could not be read; `task.json` lists them"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _quoted(text: str) -> str:
    return json.dumps(text)

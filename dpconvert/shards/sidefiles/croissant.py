"""`croissant.json`: the task in the Croissant format of MLCommons, version 1.0, https://docs.mlcommons.org/croissant.

It lists every tar and the index with their sha256. The record set `samples` is the index, `classes` the labels.
"""

from __future__ import annotations

import json
from typing import Any

from dpconvert.card import TaskCard
from dpconvert.plural import counted
from dpconvert.shards.sidefiles.licences import sentence

NAME = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
TERMS = (  # all terms of the format: validators compare them
    "citeAs",
    "column",
    "equivalentProperty",
    "extract",
    "field",
    "fileProperty",
    "fileObject",
    "fileSet",
    "format",
    "includes",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS},
}
COLUMNS = {
    "key": ("sc:Text", "name of the sample: <key>.png or .jpg, <key>.cls and <key>.json in the tar"),
    "split": ("sc:Text", "train, val or test"),
    "shard": ("sc:Text", "file name of the tar"),
    "offset": ("sc:Integer", "byte offset of the image in the tar"),
    "length": ("sc:Integer", "size of the image in bytes"),
    "format": ("sc:Text", "png or jpg"),
    "label": ("sc:Integer", "number of the class"),
    "group": ("sc:Text", "patient, slide or image that splits do not divide"),
    "stored_width": ("sc:Integer", "width of the image in pixels"),
    "stored_height": ("sc:Integer", "height of the image in pixels"),
    "sha256": ("sc:Text", "sha256 of the image's bytes"),
}
OF_TARGET = {
    "labels": ("sc:Integer", "numbers of the classes that the image has, any number of them"),
    "value": ("sc:Float", "number that is to be predicted"),
}
OF_MASKS = {
    "seg_offset": ("sc:Integer", "byte offset of the mask, <key>.seg.png, in the tar"),
    "seg_length": ("sc:Integer", "size of the mask in bytes"),
    "seg_sha256": ("sc:Text", "sha256 of the mask's bytes"),
}
OF_OBJECTS = {"objects": ("sc:Integer", "number of points and boxes in <key>.json")}


def metadata(card: TaskCard) -> bytes:
    """The file's bytes."""
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": card.task,
        "description": description(card),
        "url": card.licence.url or f"urn:sha256:{card.digest}",
        "license": sentence(card.licence.name, card.licence.url, card.licence.note),
        "citeAs": card.citation,
        "version": f"{max(card.schema_version, 2)}.0.0",
        "keywords": sorted({"histology", "pathology", "image classification", *filter(None, [card.organ, card.stain])}),
        "distribution": _files(card),
        "recordSet": [*([_classes(card)] if card.classes else []), _samples(card)],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def description(card: TaskCard) -> str:
    """A sentence that describes the task."""
    sizes = ", ".join(f"{size.samples} {split}" for split, size in card.splits.items())
    name, classes = card.title or card.task, len(card.classes)
    what = {
        "class": f"images of {counted(classes, 'class')}",
        "labels": f"images with any of {counted(classes, 'class')}",
        "value": f"images with a number{f' ({card.unit})' if card.unit else ''}",
    }[card.target]
    return f"{name}: {what} in WebDataset shards ({sizes}), split by {card.group_kind}."


def _files(card: TaskCard) -> list[dict[str, Any]]:
    index = card.index.name, card.index.size, card.index.sha256, "application/x-parquet"
    tars = [(shard.name, shard.size, shard.sha256, "application/x-tar") for shard in card.shards]
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "contentSize": f"{size} B",
            "encodingFormat": encoding,
            "sha256": sha256,
        }
        for name, size, sha256, encoding in [index, *tars]
    ]


def _classes(card: TaskCard) -> dict[str, Any]:
    fields = {"label": "sc:Integer", "name": "sc:Text"}
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [_field("classes", name, kind) for name, kind in fields.items()],
        "data": [{"classes/label": label, "classes/name": name} for label, name in enumerate(card.classes)],
    }


def _columns(card: TaskCard) -> dict[str, tuple[str, str]]:
    dense = card.dense
    masks = OF_MASKS if dense and dense.seg else {}
    columns = COLUMNS
    if card.target != "class":
        key = COLUMNS["key"][0], COLUMNS["key"][1].replace(", <key>.cls", "")
        of_target = {card.target: OF_TARGET[card.target]}
        columns = {"key": key} | of_target | {n: c for n, c in COLUMNS.items() if n not in ("key", "label")}
    return columns | masks | (OF_OBJECTS if dense and (dense.points or dense.boxes) else {})


def _samples(card: TaskCard) -> dict[str, Any]:
    fields = []
    for column, (kind, about) in _columns(card).items():
        source = {"fileObject": {"@id": "index.parquet"}, "extract": {"column": column}}
        fields.append(_field("samples", column, kind) | {"description": about, "source": source})
        if column in ("label", "labels"):
            fields[-1]["references"] = {"field": {"@id": "classes/label"}}
        if column == "labels":
            fields[-1]["repeated"] = True
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "key": {"@id": "samples/key"},
        "field": fields,
    }


def _field(records: str, name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{records}/{name}", "name": name, "dataType": kind}

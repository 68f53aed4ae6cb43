"""OCELOT 2023: images of tissue and their masks in three sets; a JSON table names the slides of TCGA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from pydantic import TypeAdapter

from dpconvert.annotations.parsing.json_text import Loose, parsed
from dpconvert.readers.fakes import FakeTree
from dpconvert.readers.layouts import masks
from dpconvert.readers.layouts.masks import read_annotations
from dpconvert.readers.named_images import check_names
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

__all__ = ["fake", "images", "read_annotations"]

PATIENT = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")


class OcelotPair(Loose):
    slide_name: str = ""
    organ: str = ""


class OcelotMetadata(Loose):
    sample_pairs: dict[str, OcelotPair] = {}


METADATA = TypeAdapter(OcelotMetadata)


def images(source: Source) -> Iterator[SourceImage]:
    pairs: dict[str, OcelotPair] = {}
    for table in source.match("table"):
        pairs |= parsed(source.read(table.name), table.name, METADATA).sample_pairs
    alone, used = 0, set[str]()
    for image in masks.images(source):
        pair = pairs.get(image.name, OcelotPair())
        used.add(image.name)
        patient = PATIENT.search(pair.slide_name)
        alone += patient is None
        attributes = {"organ": pair.organ} if pair.organ else {}
        yield replace(image, group=patient[0] if patient else image.name, attributes=attributes)
    for table in source.match("table")[:1]:
        check_names(source, table.name, list(pairs), used)
    if alone:
        source.notes.append(f"{alone} images whose patient metadata.json does not name: each is a group of its own")


def fake(tree: FakeTree) -> None:
    folder, pairs = "ocelot2023_v1.0.1", {}
    sets = ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    for number, which in enumerate(sets, start=1):
        pixels, mask = tree.coarse(512, 512), np.ones((512, 512), np.uint8)
        pixels[:, 256:] = tree.coarse(256, 512, look=3)
        mask[:, 256:] = 2
        mask[:32] = 255
        tree.save(f"{folder}/images/{which}/tissue/{number:03}.jpg", pixels, quality=80)
        tree.save(f"{folder}/annotations/{which}/tissue/{number:03}.png", mask)
        tree.write(f"{folder}/annotations/{which}/cell/{number:03}.csv", "10,20,1\n")
        slide = f"TCGA-{'AB' if number < 4 else 'CD'}-000{number}-01Z-00-DX1.svs"
        pairs[f"{number:03}"] = {"subset": which, "slide_name": slide, "organ": "kidney"}
    tree.write(f"{folder}/metadata.json", json.dumps({"dataset_version": "1.0.1", "sample_pairs": pairs}))
    tree.pack(folder)

"""Packs a released network as one file for an archive such as Zenodo, with the metadata of a Zenodo record.

The fields of `zenodo.json` are those of Zenodo's deposit API (https://developers.zenodo.org, "Deposit metadata").
"""

from __future__ import annotations

import html
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dpconvert.plural import counted
from dpconvert.shards.sidefiles.licences import OTHER, hub_name
from mtrain import __version__
from mtrain.config import FitConfig
from mtrain.disk.atomic import replacing, write_text
from mtrain.errors import RunError

METADATA = "zenodo.json"
PAPER = "10.1109/JBHI.2020.2992878"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file: equal contents give equal archives


def metadata(
    config: FitConfig, sizes: dict[str, int], licences: Iterable[tuple[str, bool]], creators: Sequence[str]
) -> dict[str, Any]:
    """The metadata of a record.

    sizes: number of training images of each task. licences: name of that of each task, and whether
    it is open. creators: names as "Family, Given".
    The licence of the record is that of the data if all tasks share an open one that Zenodo knows; otherwise it is left
    out, because only the publisher can choose it.
    """
    names = {hub_name(name) if is_open else OTHER for name, is_open in licences}
    known = sorted(names - {OTHER}) if len(names) == 1 else []
    total = f"{sum(sizes.values()):,}"
    what = f"{counted(len(sizes), 'task')} of histology and cytology ({total} images)"
    about = (
        f"<p>Weights of {html.escape(config.backbone)}, pre-trained on all data of {html.escape(what)}: "
        f"{html.escape(', '.join(sorted(sizes)))}. README.md is the model card.</p>"
    )
    fields: dict[str, Any] = {
        "title": f"{config.backbone} pre-trained on {what}, seed {config.seed}",
        "upload_type": "other",
        "description": about,
        "creators": [{"name": name} for name in creators],
        "keywords": ["histology", "cytology", "digital pathology", "multi-task learning", "pre-trained weights"],
        "notes": f"Made with mtrain {__version__} (mtrain release).",
        "related_identifiers": [{"identifier": PAPER, "relation": "cites", "resource_type": "publication-article"}],
    }
    return fields | ({"license": known[0], "access_right": "open"} if known else {})


def write_metadata(folder: Path, fields: dict[str, Any]) -> str:
    """Write the metadata to a folder, and return the name of the file.

    Raises:
        RunError: the file cannot be written.
    """
    write_text(folder / METADATA, json.dumps({"metadata": fields}, indent=1, ensure_ascii=False) + "\n")
    return METADATA


def pack(folder: Path) -> Path:
    """Write the files of a folder to a ZIP file beside it, under the folder's name; equal files give equal bytes.

    Raises:
        RunError: a file cannot be read, or the archive cannot be written.
    """
    archive = folder.with_name(f"{folder.name}.zip")
    try:
        with replacing(archive) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted(path for path in folder.iterdir() if path.is_file()):
                entry = zipfile.ZipInfo(f"{folder.name}/{path.name}", EPOCH)
                entry.external_attr = 0o644 << 16
                with path.open("rb") as file, packed.open(entry, "w", force_zip64=True) as member:
                    while chunk := file.read(1 << 20):
                        member.write(chunk)
    except OSError as error:
        raise RunError(f"cannot be archived: {error.strerror or error}", where=folder) from None
    return archive

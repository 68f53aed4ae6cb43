"""Exports a project of a Cytomine server to a folder: its lists, and its crops or its slides."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from PIL import Image as Pillow

from dpconvert.annotations.formats import cytomine
from dpconvert.annotations.formats.cytomine import CytomineAnnotation, CytomineImage, Labelled
from dpconvert.errors import FetchError
from dpconvert.obtain.cytomine_server import ApiKeys, Server
from dpconvert.obtain.download import PATIENT, Patience, locked
from dpconvert.runtime.atomic import replaced
from dpconvert.runtime.progress import Reporter

SHOWN = {"showMeta": "true", "showWKT": "true", "showTerm": "true", "showGIS": "true"}
ANY = 1 << 30  # size assumed for an image whose size is not stated
SLACK = 2  # px by which the server may round the size of a crop


@dataclass(frozen=True)
class ExportRequest:
    """A request to export a project: crops of its annotations, or the slides that have annotations."""

    host: str
    project: int
    crops: bool
    connections: int = 4

    @property
    def what(self) -> str:
        """What is exported, as a noun."""
        return "crops" if self.crops else "slides"

    @property
    def address(self) -> str:
        """The address of the host, by default with https."""
        host = self.host.rstrip("/").removesuffix("/api")
        return host if "://" in host else f"https://{host}"


@dataclass(frozen=True)
class ProjectFile:
    """A file of the server, its path in the folder, and for a crop the expected size (of its outline)."""

    path: str
    file: str
    size: tuple[float, float] | None = None


@dataclass(frozen=True)
class Brought:
    """The result: numbers of crops or slides downloaded now and existing before, and notes."""

    came: int
    had: int
    notes: list[str]


def export(
    request: ExportRequest, keys: ApiKeys, folder: Path, report: Reporter, patience: Patience = PATIENT
) -> Brought:
    """Download a project's lists, and its crops or slides, to a folder. Complete files are not downloaded again.

    Raises:
        FetchError: the server refuses or does not respond, or a file cannot be downloaded.
        OutputError: another process downloads to the folder, or it cannot be written.
    """
    with Server(request.address, keys, report, patience) as server, locked(folder):
        server.connect(request.project)
        items, slides = _lists(server, request.project, folder)
        files = list(_crops(items, slides) if request.crops else _slides(items, slides))
        return _download_all(server, files, folder, request)


def _lists(server: Server, project: int, folder: Path) -> tuple[list[CytomineAnnotation], dict[int, CytomineImage]]:
    """Download the lists. They come first, so that a conversion can see which files are missing."""
    lists = {
        "terms": server.listing(f"/api/project/{project}/term.json"),
        "images": server.listing(f"/api/project/{project}/imageinstance.json"),
        "annotations": server.listing("/api/annotation.json", project=str(project), **SHOWN),
    }
    _forget_changed(folder, lists["annotations"])
    for name, entries in lists.items():
        with replaced(folder / f"{name}.json") as file:
            file.write(json.dumps({"collection": entries, "size": len(entries)}, indent=0).encode())
    items, _ = cytomine.current(_parsed(folder / "annotations.json", CytomineAnnotation))
    return items, {slide.id: slide for slide in _parsed(folder / "images.json", CytomineImage)}


def _download_all(server: Server, files: list[ProjectFile], folder: Path, request: ExportRequest) -> Brought:
    """Download the files in parallel. Failures do not stop the other downloads, unless most of them fail."""
    what = request.what
    failures: list[FetchError] = []
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(request.connections) as pool:
        running = [pool.submit(_download, server, folder, file) for file in files]
        try:
            with server.report.bar(f"{what} of project {request.project}", len(running), unit=what) as advance:
                for future in as_completed(running):
                    try:
                        done.update(future.result())
                    except FetchError as error:
                        failures.append(error)
                    if len(failures) > max(done.total(), request.connections):
                        break
                    advance()
        finally:
            server.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        raise FetchError(
            f"{len(failures)} of {len(files)} {what} could not be downloaded, the first: {failures[0].what}",
            where=failures[0].where,
            remedy="run the same command again: finished files are kept",
        )
    notes = [f"{done['scaled']} crops are smaller than their annotations, because the server scales large ones down"]
    return Brought(done["came"], done["had"], notes if done["scaled"] else [])


def _download(server: Server, folder: Path, wanted: ProjectFile) -> Counter[str]:
    """Download one file, and count it under "came" or "had", and "scaled". Runs in a thread."""
    file = folder / wanted.file
    is_new = server.bring(wanted.path, file)
    counts = Counter({"came" if is_new else "had": 1})
    if wanted.size is None:
        return counts
    try:
        with Pillow.open(file, formats=("PNG",)) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        file.unlink()
        raise FetchError("the response is not an image", where=f"{server.address}{wanted.path}") from None
    counts["scaled"] = int(min(width - wanted.size[0], height - wanted.size[1]) < -SLACK)
    return counts


def _crops(items: list[CytomineAnnotation], slides: dict[int, CytomineImage]) -> Iterator[ProjectFile]:
    """The crops of annotations with a term and an area inside their image; others cannot be cropped."""
    for item in items:
        slide = slides.get(item.image)
        if not item.term or slide is None:
            continue
        name, size = f"annotation {item.id}", (slide.width or ANY, slide.height or ANY)
        for drawn in cytomine.shapes([Labelled(item, "")], size, name, areas=True).items:
            left, top, right, bottom = drawn.geometry.bounds
            # only the path of the stated URL is used: its host may be internal
            stated = re.fullmatch(r"(/api/\w+/\d+/crop)\.\w+", urlsplit(item.crop_url or "").path)
            path = stated[1] if stated else f"/api/userannotation/{item.id}/crop"
            yield ProjectFile(f"{path}.png", f"crops/{item.image}_{item.id}.png", (right - left, bottom - top))


def _slides(items: list[CytomineAnnotation], slides: dict[int, CytomineImage]) -> Iterator[ProjectFile]:
    """The slides that have annotations with a term, named by their ids."""
    for number in sorted({item.image for item in items if item.term} & set(slides)):
        suffix = PurePosixPath(slides[number].original_filename or "").suffix.lower()
        ending = suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ".tif"
        yield ProjectFile(f"/api/imageinstance/{number}/download", f"slides/{number}{ending}")


def _forget_changed(folder: Path, annotations: list[dict[str, Any]]) -> None:
    """Remove the crops of annotations whose outline has changed since the last download."""
    path = folder / "annotations.json"
    if not path.is_file():
        return
    before = {item.id: item.location for item in _parsed(path, CytomineAnnotation)}
    for entry in annotations:
        if entry["id"] in before and before[entry["id"]] != entry.get("location"):
            (folder / "crops" / f"{entry.get('image')}_{entry['id']}.png").unlink(missing_ok=True)


def _parsed(path: Path, kind: type[Any]) -> list[Any]:
    return cytomine.listing(path.read_bytes(), path.name, kind)

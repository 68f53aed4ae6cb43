"""A project of a Cytomine server in, an export of it in a folder out: its lists, and its crops or its slides."""

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

from dpconvert.annotations import cytomine
from dpconvert.annotations.cytomine import Item, Labelled, Slide
from dpconvert.errors import FetchError
from dpconvert.obtain.cytomine_server import Keys, Server
from dpconvert.obtain.download import PATIENT, Patience, locked
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.tar import replaced

ASKED = {"showMeta": "true", "showWKT": "true", "showTerm": "true", "showGIS": "true"}
ANY = 1 << 30  # size of an image whose size is not told
SLACK = 2  # px by which the server may round a crop


@dataclass(frozen=True)
class Request:
    """What to bring of which project: crops of its annotations, or the slides that have any."""

    host: str
    project: int
    crops: bool
    connections: int = 4

    @property
    def what(self) -> str:
        """In a word."""
        return "crops" if self.crops else "slides"

    @property
    def address(self) -> str:
        """The host as an address, https where nothing else is said."""
        told = self.host.rstrip("/").removesuffix("/api")
        return told if "://" in told else f"https://{told}"


@dataclass(frozen=True)
class Wanted:
    """A file of the server and its place in the folder; of a crop the size that its outline says."""

    path: str
    file: str
    size: tuple[float, float] | None = None


@dataclass(frozen=True)
class Brought:
    """How many crops or slides came now and were there, and what is worth saying of them."""

    came: int
    had: int
    notes: list[str]


def export(request: Request, keys: Keys, folder: Path, report: Reporter, patience: Patience = PATIENT) -> Brought:
    """Bring a project's lists, and its crops or slides, into a folder. What is there whole is not fetched again.

    Raises:
        FetchError: the server refuses, does not answer, or some file could not be had.
        OutputError: somebody else fetches into the folder, or it cannot be written.
    """
    with Server(request.address, keys, report, patience) as server, locked(folder):
        server.connect(request.project)
        items, slides = _lists(server, request.project, folder)
        wanted = list(_crops(items, slides) if request.crops else _slides(items, slides))
        return _bring_all(server, wanted, folder, request)


def _lists(server: Server, project: int, folder: Path) -> tuple[list[Item], dict[int, Slide]]:
    """Write the lists. They come before the rest, so that a conversion sees what is missing."""
    lists = {
        "terms": server.listing(f"/api/project/{project}/term.json"),
        "images": server.listing(f"/api/project/{project}/imageinstance.json"),
        "annotations": server.listing("/api/annotation.json", project=str(project), **ASKED),
    }
    _forget_changed(folder, lists["annotations"])
    for name, entries in lists.items():
        with replaced(folder / f"{name}.json") as file:
            file.write(json.dumps({"collection": entries, "size": len(entries)}, indent=0).encode())
    items, _ = cytomine.current(_parsed(folder / "annotations.json", Item))
    return items, {slide.id: slide for slide in _parsed(folder / "images.json", Slide)}


def _bring_all(server: Server, wanted: list[Wanted], folder: Path, request: Request) -> Brought:
    """Several at once. Some that fail do not stop the others, unless most do."""
    what = request.what
    failures: list[FetchError] = []
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(request.connections) as pool:
        running = [pool.submit(_bring, server, folder, one) for one in wanted]
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
            f"{len(failures)} of {len(wanted)} {what} could not be fetched, the first: {failures[0].what}",
            where=failures[0].where, remedy="run the same command again: what is here is kept",
        )  # fmt: skip
    notes = [f"{done['scaled']} crops are smaller than their annotations: the server scales large ones down"]
    return Brought(done["came"], done["had"], notes if done["scaled"] else [])


def _bring(server: Server, folder: Path, wanted: Wanted) -> Counter[str]:
    """What became of one file; runs in a thread."""
    file = folder / wanted.file
    came = server.bring(wanted.path, file)
    found = Counter({"came" if came else "had": 1})
    if wanted.size is None:
        return found
    try:
        with Pillow.open(file, formats=("PNG",)) as picture:
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        file.unlink()
        raise FetchError("no picture but something else came", where=f"{server.address}{wanted.path}") from None
    found["scaled"] = int(min(width - wanted.size[0], height - wanted.size[1]) < -SLACK)
    return found


def _crops(items: list[Item], slides: dict[int, Slide]) -> Iterator[Wanted]:
    """Of annotations with a term and an area inside their image: others cannot be cut."""
    for item in items:
        slide = slides.get(item.image)
        if not item.term or slide is None:
            continue
        name, size = f"annotation {item.id}", (slide.width or ANY, slide.height or ANY)
        for drawn in cytomine.shapes([Labelled(item, "")], size, name, areas=True).items:
            left, top, right, bottom = drawn.geometry.bounds
            told = re.fullmatch(
                r"(/api/\w+/\d+/crop)\.\w+", urlsplit(item.crop_url or "").path
            )  # its host may be internal
            path = told[1] if told else f"/api/userannotation/{item.id}/crop"
            yield Wanted(f"{path}.png", f"crops/{item.image}_{item.id}.png", (right - left, bottom - top))


def _slides(items: list[Item], slides: dict[int, Slide]) -> Iterator[Wanted]:
    """Of the images that have annotations with a term, under their ids."""
    for number in sorted({item.image for item in items if item.term} & set(slides)):
        suffix = PurePosixPath(slides[number].original_filename or "").suffix.lower()
        ending = suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ".tif"
        yield Wanted(f"/api/imageinstance/{number}/download", f"slides/{number}{ending}")


def _forget_changed(folder: Path, annotations: list[dict[str, Any]]) -> None:
    """Remove the crops of annotations whose outline is not that of the last time."""
    path = folder / "annotations.json"
    if not path.is_file():
        return
    before = {item.id: item.location for item in _parsed(path, Item)}
    for entry in annotations:
        if entry["id"] in before and before[entry["id"]] != entry.get("location"):
            (folder / "crops" / f"{entry.get('image')}_{entry['id']}.png").unlink(missing_ok=True)


def _parsed(path: Path, kind: type[Any]) -> list[Any]:
    return cytomine.listing(path.read_bytes(), path.name, kind)

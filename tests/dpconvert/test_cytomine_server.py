"""Exports from a Cytomine server: a small one on this machine that checks signatures and speaks the documented JSON."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from dpconvert.errors import FetchError, OutputError, UsageError
from dpconvert.manifest.catalog import find
from dpconvert.obtain import cytomine_server as servers
from dpconvert.obtain.cytomine_project import Brought, ExportRequest, export
from dpconvert.obtain.cytomine_server import ApiKeys
from dpconvert.obtain.download import Patience
from dpconvert.readers import with_defaults
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from tests.dpconvert.conftest import Answer, Converted, run
from tests.dpconvert.loopback import Handler, Site, serving

PUBLIC, PRIVATE = "6b5a0a5e-public", "0f2c-secret"
KEYS = ApiKeys(PUBLIC, PRIVATE)
HASTY = Patience(connect=2, silence=2, tries=3, wait=0.01)
QUIET = Reporter(quiet=True)
PROJECT = 716498


@dataclass
class Cytomine(Site):
    """A project as the server holds it. most: entries of a page whatever is asked; signs_paths: as older servers do."""

    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    most: int = 1000
    signs_paths: bool = True
    refused: list[str] = field(default_factory=list)

    def signed(self, headers: Any, path: str) -> bool:
        token = f"GET\n\n{headers.get('content-type', '')}\n{headers['date']}" + f"\n{path}" * self.signs_paths
        digest = hmac.new(PRIVATE.encode(), token.encode(), hashlib.sha1).digest()
        return bool(headers["authorization"] == f"CYTOMINE {PUBLIC}:{base64.b64encode(digest).decode()}")


class Interface(Handler):
    """GET of the REST interface."""

    site: Cytomine

    def do_GET(self) -> None:  # noqa: N802
        url = urlsplit(self.path)
        if not self.site.signed(self.headers, self.path):
            self.site.refused.append(self.path)
            self.reply(401, b'{"errors": "unauthorized"}', {})
        elif url.path == f"/api/project/{PROJECT}.json":
            self.send_json({"id": PROJECT, "name": "ULG-LBTD-LBA"})
        elif url.path in self.site.lists:
            self.site.asked.append((self.path, None))
            self.send_page(self.site.lists[url.path], {k: v[0] for k, v in parse_qs(url.query).items()})
        else:
            super().do_GET()

    def send_page(self, entries: list[dict[str, Any]], query: dict[str, str]) -> None:
        if url_needs_filter(self.path) and query.get("project") != str(PROJECT):
            self.reply(400, b"{}", {})
            return
        shown = [entry if query.get("showWKT") == "true" else without_outline(entry) for entry in entries]
        offset, most = int(query.get("offset", 0)), min(int(query.get("max", 0)) or 10**9, self.site.most)
        page = shown[offset : offset + most]
        self.send_json(
            {"collection": page, "offset": offset, "perPage": len(page), "size": len(shown), "totalPages": 1}
        )

    def send_json(self, body: Any) -> None:
        self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


def url_needs_filter(path: str) -> bool:
    return path.startswith("/api/annotation.json")


def without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k != "location"}


@pytest.fixture
def cytomine(converted: Callable[[str], Converted]) -> Iterator[Cytomine]:
    """A server that holds the fake of human-lba, crops and lists."""
    with holding(converted("human-lba").source) as site:
        yield site


@contextmanager
def holding(root: Path) -> Iterator[Cytomine]:
    """A server that holds an export of crops and lists."""
    with serving(Cytomine(), Interface) as site:
        assert isinstance(site, Cytomine)
        pages = sorted(root.glob("annotations*.json"))
        annotations = {e["id"]: e for page in pages for e in json.loads(page.read_text())["collection"]}
        for entry in annotations.values():
            entry["cropURL"] = f"http://internal:8080/api/userannotation/{entry['id']}/crop.png"
        site.lists = {
            "/api/annotation.json": list(annotations.values()),
            f"/api/project/{PROJECT}/imageinstance.json": json.loads((root / "images.json").read_text())["collection"],
            f"/api/project/{PROJECT}/term.json": json.loads((root / "terms.json").read_text())["collection"],
        }
        for crop in root.glob("crops/*.png"):
            site.files[f"/api/userannotation/{crop.stem.split('_')[1]}/crop.png"] = crop.read_bytes()
        yield site


def bring(site: Cytomine, folder: Path, keys: ApiKeys = KEYS, **more: Any) -> Brought:
    wanted = ExportRequest(site.url, more.pop("project", PROJECT), more.pop("crops", True))
    return export(wanted, keys, folder, QUIET, HASTY)


@pytest.mark.parametrize("signs_paths", [True, False])
def test_an_export_converts_to_the_same_task_as_the_original(
    cytomine: Cytomine, converted: Callable[[str], Converted], tmp_path: Path, signs_paths: bool
) -> None:
    cytomine.signs_paths = signs_paths
    assert bring(cytomine, tmp_path / "human-lba").came == 148
    ours = run(with_defaults(find("human-lba")), tmp_path / "human-lba", tmp_path / "ours")
    assert ours.samples() == 148
    assert ours.digest == converted("human-lba").card.digest
    assert len(cytomine.refused) == (0 if signs_paths else 1)


def test_every_page_of_a_list_is_read(cytomine: Cytomine, tmp_path: Path) -> None:
    cytomine.most = 7
    bring(cytomine, tmp_path)
    listed = json.loads((tmp_path / "annotations.json").read_text())
    assert [e["id"] for e in listed["collection"]] == sorted(e["id"] for e in cytomine.lists["/api/annotation.json"])
    assert all("location" in e for e in listed["collection"])


def test_a_second_run_fetches_only_what_is_missing(cytomine: Cytomine, tmp_path: Path) -> None:
    bring(cytomine, tmp_path)
    gone = sorted((tmp_path / "crops").iterdir())[5]
    data = gone.read_bytes()
    gone.unlink()
    again = bring(cytomine, tmp_path)
    assert (again.came, again.had) == (1, 147)
    assert gone.read_bytes() == data


def test_two_fetches_into_one_folder_do_not_meet(cytomine: Cytomine, tmp_path: Path) -> None:
    told = (
        r"another `dpconvert fetch` is writing to this folder; found process \d+ on .*; wait until it ends, or choose"
    )
    with locks.held(tmp_path / locks.NAME), pytest.raises(OutputError, match=told):
        bring(cytomine, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [locks.NAME]


def test_cut_crops_go_on(cytomine: Cytomine, tmp_path: Path) -> None:
    cytomine.cut_after = [40, 3000, 0, 100]
    assert bring(cytomine, tmp_path).came == 148
    assert not [p.name for p in (tmp_path / "crops").iterdir() if p.suffix != ".png"]


def test_a_crop_is_fetched_again_when_its_outline_has_changed(cytomine: Cytomine, tmp_path: Path) -> None:
    bring(cytomine, tmp_path)
    entry = cytomine.lists["/api/annotation.json"][7]
    entry["location"] = "POLYGON ((30 30, 90 30, 90 80, 30 80, 30 30))"
    buffer = io.BytesIO()
    Image.new("RGB", (60, 50), "red").save(buffer, "PNG")
    cytomine.files[f"/api/userannotation/{entry['id']}/crop.png"] = buffer.getvalue()
    assert bring(cytomine, tmp_path).came == 1
    assert (tmp_path / "crops" / f"{entry['image']}_{entry['id']}.png").read_bytes() == buffer.getvalue()


def test_crops_that_the_server_scaled_down_are_reported(cytomine: Cytomine, tmp_path: Path) -> None:
    path = next(path for path in cytomine.files if path.endswith(f"{10_000_005}/crop.png"))
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    cytomine.files[path] = buffer.getvalue()
    assert bring(cytomine, tmp_path).notes == [
        "1 crops are smaller than their annotations, because the server scales large ones down"
    ]


def test_some_crops_that_fail_do_not_stop_the_others(cytomine: Cytomine, tmp_path: Path) -> None:
    del cytomine.files[f"/api/userannotation/{10_000_100}/crop.png"]
    cytomine.files[f"/api/userannotation/{10_000_101}/crop.png"] = b"<html>error</html>"
    with pytest.raises(FetchError, match=r"2 of 148 crops could not be downloaded.*run the same command again"):
        bring(cytomine, tmp_path)
    assert len(list((tmp_path / "crops").iterdir())) == 146


def test_a_server_that_fails_at_everything_is_left_early(cytomine: Cytomine, tmp_path: Path) -> None:
    cytomine.files.clear()
    with pytest.raises(FetchError, match="crops could not be downloaded"):
        bring(cytomine, tmp_path)
    assert sum("/crop" in path for path, _ in cytomine.asked) < 60


def test_slides_of_annotated_images_come_under_their_ids(cytomine: Cytomine, tmp_path: Path) -> None:
    images = cytomine.lists[f"/api/project/{PROJECT}/imageinstance.json"]
    images[0]["originalFilename"] = "../../etc/evil.svs"
    for image in images:
        cytomine.files[f"/api/imageinstance/{image['id']}/download"] = f"slide {image['id']}".encode()
    assert bring(cytomine, tmp_path / "x", crops=False).came == 9
    names = sorted(path.name for path in (tmp_path / "x" / "slides").iterdir())
    assert names == sorted([f"{images[0]['id']}.svs", *(f"{i['id']}.tif" for i in images[1:9])])
    assert not list(tmp_path.rglob("evil.svs"))


def test_wrong_keys_are_one_line_without_the_keys(cytomine: Cytomine, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"access denied \(HTTP 40[13]\); check CYTOMINE_PUBLIC_KEY") as caught:
        bring(cytomine, tmp_path, ApiKeys(PUBLIC, "wrong-secret"))
    told = str(caught.value) + repr(ApiKeys(PUBLIC, "wrong-secret"))
    assert "wrong-secret" not in told
    assert PUBLIC not in told


def test_an_unknown_project_and_a_server_that_is_none_are_one_line(cytomine: Cytomine, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"no such project \(HTTP 404\)") as caught:
        bring(cytomine, tmp_path, project=5)
    assert PUBLIC not in str(caught.value)
    cytomine.lists.clear()
    cytomine.files["/api/project/716498/term.json"] = b"<html>hello</html>"
    with pytest.raises(FetchError, match="the response is not a list"):
        bring(cytomine, tmp_path)
    with pytest.raises(FetchError, match="does not respond"):
        export(ExportRequest("http://127.0.0.1:9", 5, True), KEYS, tmp_path, QUIET, HASTY)


def test_a_list_that_ends_early_is_an_error(cytomine: Cytomine, tmp_path: Path) -> None:
    cytomine.most = 0
    with pytest.raises(FetchError, match="incomplete list"):
        bring(cytomine, tmp_path)


def test_a_busy_server_is_queried_again(cytomine: Cytomine, tmp_path: Path) -> None:
    cytomine.statuses = [503, 502]
    assert bring(cytomine, tmp_path).came == 148


@pytest.mark.parametrize(
    ("host", "address"),
    [("cytomine.org", "https://cytomine.org"), ("http://a:80/", "http://a:80"), ("https://a/api/", "https://a")],
)
def test_a_host_may_be_given_in_several_ways(host: str, address: str) -> None:
    assert ExportRequest(host, 1, True).address == address


def test_keys_come_from_the_environment_alone() -> None:
    told = {servers.PUBLIC: " a ", servers.PRIVATE: "b\n"}
    assert ApiKeys.from_environment(told) == ApiKeys("a", "b")
    with pytest.raises(UsageError, match=f"{servers.PRIVATE} not set"):
        ApiKeys.from_environment({servers.PUBLIC: "a", servers.PRIVATE: " "})


Run = Callable[..., Answer]


@pytest.fixture
def with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(servers.PUBLIC, PUBLIC)
    monkeypatch.setenv(servers.PRIVATE, PRIVATE)


@pytest.mark.usefixtures("with_keys")
def test_the_command_brings_a_project_and_converts_it(cytomine: Cytomine, tmp_path: Path, dpconvert: Run) -> None:
    folder = tmp_path / "lba"
    answer = dpconvert("fetch", "human-lba", "--host", cytomine.url, "--project", PROJECT, "--to", folder)
    assert answer.code == 0, answer.err
    assert "148 crops downloaded, 0 existing" in answer.out
    assert "licence: on request" in answer.err
    assert PRIVATE not in answer.out + answer.err
    assert not [path for path in folder.rglob("*") if path.is_file() and PRIVATE.encode() in path.read_bytes()]
    answer = dpconvert("human-lba", "--source", folder, "--out", tmp_path / "out", "-q", "--workers", 1)
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.usefixtures("with_keys")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lung", "--project", "1"], "both --host URL and --project ID"),
        (["lung", "--host", "x"], "both --host URL and --project ID"),
        (["warwick-crc", "--host", "x", "--project", "1"], "not a project of a Cytomine server"),
        (["breast1", "--host", "x", "--project", "1", "--crops"], "cut from slides"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: list[str], words: str, dpconvert: Run, tmp_path: Path) -> None:
    answer = dpconvert("fetch", *arguments, "--to", tmp_path / "x")
    assert answer.code == 1
    assert re.search(words, answer.err)
    assert not (tmp_path / "x").exists()


def test_several_projects_lie_side_by_side_and_are_read_together(cytomine: Cytomine, tmp_path: Path) -> None:
    for place in ("1", "2"):
        bring(cytomine, tmp_path / "lba" / place)
    second = tmp_path / "lba" / "2"
    text = (second / "annotations.json").read_text()
    (second / "annotations.json").write_text(re.sub(r"\b1(0000\d{3})\b", r"6\1", text))
    for crop in list((second / "crops").iterdir()):
        crop.rename(crop.with_name(crop.name.replace("_1", "_6")))
    card = run(with_defaults(find("human-lba")), tmp_path / "lba", tmp_path / "out")
    assert card.samples() == 2 * 148

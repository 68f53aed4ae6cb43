"""Pools: the lists of the package, and `dpconvert fetch --pool` against servers that behave as the usual hosts do."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from PIL import Image

from dpconvert.card import load
from dpconvert.errors import FetchError, ManifestError
from dpconvert.manifest.pools import find_pool, known_pools
from dpconvert.obtain import pool as obtaining
from dpconvert.obtain.download import Downloader, Patience, Remote
from dpconvert.runtime.progress import Reporter
from tests.dpconvert.conftest import Answer, one_line
from tests.dpconvert.loopback import Host, Site, serving

HASTY = Patience(connect=2, silence=0.5, tries=3, wait=0.01)
QUIET = Reporter(quiet=True)
DATA = bytes(range(256)) * 4000
Run = Callable[..., Answer]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("dpconvert.obtain.pool.arrivals.__kwdefaults__", {"patience": HASTY})
    with serving(Site({"/s3/a.bin": DATA}, redirects={"/a.bin": (302, "/s3/a.bin")}), Host) as served:
        yield served


# --- what hosts do


def fetched(site: Site, path: Path, digest: str = "") -> bytes:
    with requests.Session() as session:
        Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin", digest), path)
    return path.read_bytes()


@pytest.mark.parametrize("status", [302, 303, 307])
def test_a_redirect_to_a_signed_address_is_followed_and_a_cut_download_resumed_through_a_new_one(
    site: Site, tmp_path: Path, status: int
) -> None:
    site.redirects["/a.bin"] = (status, "/s3/a.bin")
    site.cut_after = [300_000]
    assert fetched(site, tmp_path / "a.bin") == DATA
    paths = [path.partition("?")[0] for path, _ in site.asked]
    assert paths == ["/a.bin", "/s3/a.bin"] * 2
    assert site.asked[0][0] == site.asked[2][0] == "/a.bin"
    assert site.asked[1][0] != site.asked[3][0]
    assert site.asked[3][1] is not None


def test_an_address_that_expired_is_requested_anew(site: Site, tmp_path: Path) -> None:
    site.expire = 2
    assert fetched(site, tmp_path / "a.bin") == DATA


def test_addresses_that_always_expire_are_given_up_with_the_reason(site: Site, tmp_path: Path) -> None:
    site.expire = 99
    with pytest.raises(FetchError, match=r"redirects to has expired \(HTTP 403\); 3 attempts without progress"):
        fetched(site, tmp_path / "a.bin")


def test_a_host_that_prepares_the_file_is_queried_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [202, 202]
    assert fetched(site, tmp_path / "a.bin") == DATA


def test_a_file_that_changed_behind_its_address_is_begun_anew(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(FetchError, match="attempts without progress"):
        fetched(site, tmp_path / "a.bin")
    site.files["/s3/a.bin"], site.cut_after = DATA[::-1], []
    assert fetched(site, tmp_path / "a.bin") == DATA[::-1]


def test_a_file_that_changed_is_not_taken_for_the_published_one(site: Site, tmp_path: Path) -> None:
    digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    site.files["/s3/a.bin"] = DATA[::-1]
    with pytest.raises(FetchError, match="not the published file"):
        fetched(site, tmp_path / "a.bin", digest)
    assert list(tmp_path.iterdir()) == []


# --- pools


def archive(name: str, seed: int) -> bytes:
    """Six patches of two classes, in a zip or a tar."""
    random, buffer = np.random.default_rng(seed), io.BytesIO()
    members = {}
    for number in range(6):
        image = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(image, "PNG")
        members[f"{'ab'[number % 2]}/{number}.png"] = image.getvalue()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as packed:
            for member, data in members.items():
                packed.writestr(member, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def manifest(folder: Path, name: str, task: str, url: str, archive_name: str, *, is_open: bool = True) -> str:
    """The name of a manifest beside the pool's list."""
    text = (
        f'task = "{task}"\nshape = "folders"\norgan = "skin"\nstain = "H&E"\n'
        f'[licence]\nname = "Terms of {task}"\nopen = {str(is_open).lower()}\n'
        f'[obtain]\n[[obtain.archives]]\nname = "{archive_name}"\nurl = "{url}"\n'
    )
    (folder / f"{name}.toml").write_text(text)
    return f'[[sources]]\nname = "{name}.toml"\ndownload = 0.001\nshards = 0.001\n'


@pytest.fixture
def pool(site: Site, tmp_path: Path) -> Path:
    """A list of five sources on five kinds of hosts."""
    packed = {"zenodo.zip": 1, "dataverse.tar.gz": 2, "figshare.zip": 3, "mendeley.zip": 4, "s3.zip": 5}
    parts = []
    for number, (name, seed) in enumerate(packed.items()):
        path = f"/{name}"
        if name.startswith(("dataverse", "figshare", "mendeley")):
            site.redirects[path] = (303 if name.startswith("dataverse") else 302, f"/signed/{name}")
            path = f"/signed/{name}"
        site.files[path] = archive(name, seed)
        source = name.partition(".")[0]
        parts.append(manifest(tmp_path, source, f"Task{number}", f"{site.url}/{name}", name, is_open=number > 0))
    (tmp_path / "five.toml").write_text('title = "Five"\n' + "\n".join(parts))
    return tmp_path / "five.toml"


def call(dpconvert: Run, pool: Path, *more: object) -> Answer:
    folders = ("--to", pool.parent / "sources", "--out", pool.parent / "shards")
    return dpconvert("fetch", "--pool", pool, *folders, "--workers", 1, *more)


def test_a_pool_is_downloaded_and_converted_once_its_licences_are_accepted(
    site: Site, pool: Path, dpconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said = one_line(call(dpconvert, pool, "-q"))
    assert "licences that are not accepted: zenodo (Terms of Task0)" in said
    assert "--accept-licences" in said
    assert site.asked == []
    site.statuses, site.expire = [429, 503], 1
    answer = call(dpconvert, pool, "--accept-licences", "-q")
    assert (answer.code, answer.err) == (0, "")
    assert "five: 5 converted" in answer.out
    for number in range(5):
        assert load(pool.parent / "shards" / f"Task{number}").samples() == 6
    site.asked.clear()
    assert call(dpconvert, pool, "-q").code == 0  # nothing is left to accept, to download or to convert
    assert site.asked == []


def test_one_answer_on_a_terminal_accepts_all_licences(
    pool: Path, dpconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word, code in (("n", 1), ("y", 0)):
        terminal = io.TextIOWrapper(io.BytesIO(f"{word}\n".encode()))
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stdin", terminal)
        answer = call(dpconvert, pool, "-q")
        assert answer.code == code
        assert "zenodo  Terms of Task0" in answer.out
        assert "s3" not in answer.out.partition("five:")[0].replace("sources", "")


def test_what_fails_is_reported_and_the_rest_is_made(site: Site, pool: Path, dpconvert: Run) -> None:
    whole = site.files.pop("/s3.zip")
    site.files["/signed/mendeley.zip"] = b"<html>Please log in</html>"
    answer = call(dpconvert, pool, "--accept-licences", "-q")
    assert answer.code == 1
    assert "s3: " in answer.err
    assert "file not found (HTTP 404)" in answer.err
    assert "a web page, and not the file" in answer.err
    assert "3 converted" in answer.out
    site.files["/s3.zip"] = site.files["/signed/mendeley.zip"] = whole
    assert call(dpconvert, pool, "--accept-licences", "-q").code == 0


def test_a_source_of_a_converted_task_may_be_removed(site: Site, pool: Path, dpconvert: Run) -> None:
    call(dpconvert, pool, "--accept-licences", "-q")
    (pool.parent / "sources" / "zenodo" / "zenodo.zip").unlink()
    site.asked.clear()
    assert call(dpconvert, pool, "-q").code == 0
    assert site.asked == []


def test_a_pool_may_be_downloaded_only(pool: Path, dpconvert: Run) -> None:
    answer = call(dpconvert, pool, "--accept-licences", "--no-convert", "-q")
    assert answer.code == 0
    assert "five: 5 downloaded" in answer.out
    assert "dpconvert all --root" in answer.out
    assert not (pool.parent / "shards").exists()
    shown = dpconvert("pool", pool, "--root", pool.parent / "sources", "--out", pool.parent / "shards")
    assert shown.out.count("  downloaded\n") == 5


def test_a_pool_that_does_not_fit_is_not_begun(
    site: Site, pool: Path, dpconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=9_000_000))
    said = one_line(call(dpconvert, pool, "--accept-licences", "-q"))
    assert "not enough disk space for the pool" in said  # five times a megabyte of download, and one of shards
    assert site.asked == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000_001))
    assert call(dpconvert, pool, "--accept-licences", "-q").code == 0


def test_downloads_that_are_not_waited_for_stop_and_go_on_later(site: Site, pool: Path) -> None:
    chosen = obtaining.members(find_pool(str(pool)), pool.parent / "sources", pool.parent / "shards")
    arrivals = obtaining.arrivals(chosen, QUIET, at_once=1, patience=HASTY)
    first = next(arrivals)
    arrivals.close()
    assert not isinstance(first.result, Exception)
    states = [member.state for member in chosen]
    assert states[0] == "downloaded"
    again = list(obtaining.arrivals(chosen, QUIET, at_once=2, patience=HASTY))
    assert [arrival.member.state for arrival in again] == ["downloaded"] * 5


def test_a_source_that_must_be_requested_says_so(pool: Path, dpconvert: Run) -> None:
    (pool.parent / "asked.toml").write_text(
        'task = "Asked"\nshape = "folders"\n[licence]\nname = "x"\nopen = true\n'
        '[obtain]\nurl = "https://example.org/form"\n[[obtain.archives]]\nname = "x.zip"\n'
    )
    (pool.parent / "one.toml").write_text('[[sources]]\nname = "asked.toml"\n')
    answer = call(dpconvert, pool.with_name("one.toml"), "-q")
    assert answer.code == 1
    assert "https://example.org/form: must be requested by hand" in answer.err
    (pool.parent / "asked.toml").write_text('task = "Asked"\nshape = "folders"\n')
    answer = call(dpconvert, pool.with_name("one.toml"), "-q", "--accept-licences")
    assert "error: asked: must be requested by hand; put its files into " in answer.err
    shown = dpconvert("pool", pool.with_name("one.toml")).out
    assert "the rest needs about 0.0 GB of disk, without 1 source of unknown size" in shown


def test_a_pool_as_json_is_one_document(pool: Path, dpconvert: Run) -> None:
    done = json.loads(call(dpconvert, pool, "--accept-licences", "--json", "-q").out)
    assert {(one["state"], one["error"]) for one in done["sources"]} == {("converted", None)}
    shown = json.loads(dpconvert("pool", pool, "--out", pool.parent / "shards", "--json").out)
    assert shown["sources"][0]["licence"]["name"] == "Terms of Task0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources = []", "sources"),
        ('[[sources]]\nname = "lung"\nsize = 3', "size"),
        ('[[sources]]\nname = "lung"\n[[sources]]\nname = "lung"', "'lung' is listed twice"),
        ('[[sources]]\nname = "lung"\ndownload = inf', "download"),
        ("[[", "not TOML"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ManifestError, match=words):
        find_pool(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize("name", known_pools())
def test_every_source_of_a_pool_can_be_downloaded_without_a_form(name: str) -> None:
    pool = find_pool(name)
    for source in pool.sources:
        archives = pool.manifest(source).obtain.archives
        assert archives, source.name
        assert all(one.url.startswith(("http://", "https://")) for one in archives), source.name
        stated = sum(file.size or 0 for one in archives for file in one.files()) / 1e9
        assert source.download >= stated - 0.05, source.name
    if name == "open-hour":
        assert sum(source.download for source in pool.sources) <= 30


def test_the_command_line_names_what_excludes_what(dpconvert: Run) -> None:
    assert "give either a source or --pool" in one_line(dpconvert("fetch"))
    assert "give either a source or --pool" in one_line(dpconvert("fetch", "lung", "--pool", "open-hour"))
    assert "did you mean open-hour" in one_line(dpconvert("pool", "open-hur"))
    assert "open-hour" in dpconvert("pool").out
    shown = dpconvert("pool", "open-hour").out
    assert "patch-camelyon" in shown
    assert "(reported): others state this licence" in shown
    assert "not stated: the release names no licence" in shown
    assert "accept the terms of the 7 sources not known to be open" in shown
    assert " 0.0 " not in shown


@pytest.mark.parametrize(
    ("name", "task", "words"), [("zenodo", "Other", "source folder 'zenodo'"), ("third", "Task1", "task 'Task1'")]
)
def test_sources_that_share_a_folder_or_a_task_are_refused(
    name: str, task: str, words: str, site: Site, pool: Path, dpconvert: Run
) -> None:
    """The second would pass for downloaded or converted, and be left out."""
    (pool.parent / "sub").mkdir()
    added = manifest(pool.parent / "sub", name, task, f"{site.url}/x.zip", "x.zip")
    pool.write_text(pool.read_text() + added.replace('name = "', 'name = "sub/'))
    for answer in (dpconvert("pool", pool), call(dpconvert, pool, "--accept-licences")):
        assert answer.code == 1
        assert words in one_line(answer)
    assert site.asked == []

"""Downloads against a server on this machine: cut, refused, changed, wrong, slow; and what `dpconvert fetch` says."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests

from dpconvert.errors import FetchError, OutputError, UsageError
from dpconvert.manifest.catalog import find, known, load
from dpconvert.manifest.model import Manifest
from dpconvert.obtain import fetch
from dpconvert.obtain.download import CHUNK, Downloader, Patience, Remote
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Answer
from tests.dpconvert.loopback import Handler, Site, serving

HASTY = Patience(connect=2, silence=0.3, tries=3, wait=0.01)
QUIET = Reporter(quiet=True)
DATA = bytes(range(256)) * 4000
SHA = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"/a.bin": DATA})) as served:
        yield served


@pytest.fixture
def get(site: Site) -> Iterator[Callable[..., bool]]:
    """Fetch /a.bin to a path."""
    with requests.Session() as session:
        downloader = Downloader(QUIET, session, HASTY)
        yield lambda path, digest="": downloader.fetch(Remote(f"{site.url}/a.bin", digest), path)


Get = Callable[..., bool]


def test_a_file_comes_whole_and_leaves_nothing_beside_it(site: Site, get: Get, tmp_path: Path) -> None:
    assert get(tmp_path / "deep" / "a.bin", SHA)
    assert (tmp_path / "deep" / "a.bin").read_bytes() == DATA
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.bin"]


def test_what_is_there_is_not_requested_again(site: Site, get: Get, tmp_path: Path) -> None:
    get(tmp_path / "a.bin", SHA)
    asked = len(site.asked)
    assert not get(tmp_path / "a.bin", SHA)
    assert len(site.asked) == asked


def test_a_cut_download_goes_on_where_it_was_cut(site: Site, get: Get, tmp_path: Path) -> None:
    site.cut_after = [300_000, 200_000, 0, 1]
    assert get(tmp_path / "a.bin", SHA)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for _, wanted in site.asked if wanted]
    assert starts == [p * CHUNK for p in (300_000 // CHUNK, (500_000 - 300_000 % CHUNK) // CHUNK)] + starts[-1:] * 2


def test_a_later_run_goes_on_too(site: Site, get: Get, tmp_path: Path) -> None:
    site.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(FetchError, match=r"attempts without progress.*finished parts are kept"):
        get(tmp_path / "a.bin")
    there = (tmp_path / "a.bin.part").stat().st_size
    assert 300_000 - CHUNK < there <= 300_000
    assert not (tmp_path / "a.bin").exists()
    site.asked.clear()
    assert get(tmp_path / "a.bin")
    assert site.asked == [("/a.bin", f"bytes={there}-")]
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_part_that_is_whole_already_is_taken(site: Site, get: Get, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA)
    assert get(tmp_path / "a.bin", SHA)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_part_that_is_too_long_is_begun_anew(site: Site, get: Get, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA + b"x")
    get(tmp_path / "a.bin", SHA)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_that_changed_meanwhile_is_begun_anew(site: Site, get: Get, tmp_path: Path) -> None:
    site.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(FetchError):
        get(tmp_path / "a.bin")
    site.files["/a.bin"] = DATA[::-1]
    get(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("versions", [True, False])
def test_a_server_without_ranges_sends_all_again(site: Site, get: Get, tmp_path: Path, versions: bool) -> None:
    site.ranges, site.versions, site.cut_after = False, versions, [300_000, 100_000]
    assert get(tmp_path / "a.bin", SHA)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_server_without_ranges_that_always_cuts_is_given_up(site: Site, get: Get, tmp_path: Path) -> None:
    site.ranges, site.cut_after = False, [300_000, 200_000, 250_000, 300_000, *[1000] * 50]
    with pytest.raises(FetchError, match="3 attempts without progress"):
        get(tmp_path / "a.bin")


def test_a_body_of_unknown_length_is_taken_as_it_ends(site: Site, get: Get, tmp_path: Path) -> None:
    site.announces = False
    assert get(tmp_path / "a.bin", SHA)


def test_a_silent_server_counts_as_cut(site: Site, get: Get, tmp_path: Path) -> None:
    site.silent_after = 3 * CHUNK
    assert get(tmp_path / "a.bin", SHA)
    assert site.asked[1] == ("/a.bin", f"bytes={3 * CHUNK}-")


def test_a_busy_server_is_queried_again(site: Site, get: Get, tmp_path: Path) -> None:
    site.statuses = [503, 429]
    assert get(tmp_path / "a.bin", SHA)


@pytest.mark.parametrize(
    ("status", "words"), [(404, "not found"), (403, "denied"), (410, "no longer exists"), (302, "refuses")]
)
def test_a_refusal_is_one_line_and_final(site: Site, get: Get, tmp_path: Path, status: int, words: str) -> None:
    site.statuses = [status] * 9
    with pytest.raises(FetchError, match=rf"/a\.bin: .*{words}.*\(HTTP {status}\)"):
        get(tmp_path / "a.bin")
    assert len(site.asked) == 1
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_digest_is_said_and_the_file_removed(site: Site, get: Get, tmp_path: Path, kind: str) -> None:
    with pytest.raises(FetchError, match=f"not the published file; expected {kind}:00; found {kind}:[0-9a-f]+"):
        get(tmp_path / "a.bin", f"{kind}:00")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_put_there_is_checked_but_not_removed(site: Site, get: Get, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"not the published file.*remove it"):
        get(tmp_path / "a.bin", SHA)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_no_server_and_no_address_are_one_line(tmp_path: Path) -> None:
    with requests.Session() as session:
        downloader = Downloader(QUIET, session, HASTY)
        for url in ("http://127.0.0.1:9/a.bin", "http:///a.bin", "http://[::1/a"):
            with pytest.raises(FetchError):
                downloader.fetch(Remote(url), tmp_path / "a.bin")


def test_stop_ends_a_download_between_two_pieces(site: Site, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with requests.Session() as session, pytest.raises(FetchError, match="stopped"):
        Downloader(QUIET, session, HASTY, stop).fetch(Remote(f"{site.url}/a.bin"), tmp_path / "a.bin")


def test_a_folder_that_is_a_file_is_one_line(site: Site, get: Get, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        get(tmp_path / "file" / "a.bin")


# --- parts of what may have changed, without a digest


def part_of(site: Site, get: Get, path: Path) -> int:
    """Leave a part of /a.bin; its size."""
    site.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(FetchError):
        get(path)
    return path.with_name(f"{path.name}.part").stat().st_size


OTHER = DATA[::-1]


def test_a_part_of_another_version_is_begun_anew_though_the_server_sends_the_rest(
    site: Site, get: Get, tmp_path: Path
) -> None:
    part_of(site, get, tmp_path / "a.bin")
    site.files["/a.bin"], site.deaf = OTHER, True
    get(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == OTHER


@pytest.mark.parametrize("content_range", ["", "bytes 0-1", "bytes 5-9/10", "pages 1-2/3"])
def test_a_part_that_does_not_say_which_it_is_is_begun_anew(
    site: Site, get: Get, tmp_path: Path, content_range: str
) -> None:
    part_of(site, get, tmp_path / "a.bin")
    site.headers = [{"Content-Range": content_range}]
    get(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_of_another_length_is_begun_anew_where_no_version_is_stated(
    site: Site, get: Get, tmp_path: Path
) -> None:
    site.versions = False
    part_of(site, get, tmp_path / "a.bin")
    site.files["/a.bin"] = OTHER + b"more"
    get(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == OTHER + b"more"


def test_a_later_run_begins_anew_where_nothing_would_show_a_change(site: Site, tmp_path: Path) -> None:
    """Within a run, and where a digest is published, the part is used."""
    site.versions, changed = False, f"sha256:{hashlib.sha256(OTHER).hexdigest()}"
    for digest, requests_ in (("", [None]), (SHA, ["bytes=294912-"]), (changed, ["bytes=294912-", None])):
        path = tmp_path / f"{len(requests_)}{digest[:10]}" / "a.bin"
        site.files["/a.bin"], site.cut_after = DATA, [300_000, 0, 0, 0]
        with requests.Session() as session, pytest.raises(FetchError):
            Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin"), path)
        assert {wanted for _, wanted in site.asked} == {None, "bytes=294912-"}
        site.files["/a.bin"], site.asked = DATA if digest == SHA else OTHER, []
        with requests.Session() as session:
            for _ in requests_[1:]:
                with pytest.raises(FetchError, match="not the published file"):
                    Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin", digest), path)
            assert Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin", digest), path)
        assert path.read_bytes() == site.files["/a.bin"]
        assert [wanted for _, wanted in site.asked] == requests_


@pytest.mark.parametrize("total", ["", "*"])
def test_answers_that_are_shorter_than_requested_are_put_together(
    site: Site, get: Get, tmp_path: Path, total: str
) -> None:
    start = part_of(site, get, tmp_path / "a.bin")
    site.most = 250_000
    if total:
        site.headers = [{"Content-Range": f"bytes {start}-{start + site.most - 1}/*"}]
    get(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_part_without_a_note_of_its_version_is_begun_anew(site: Site, get: Get, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(OTHER[:1000])
    get(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA


def sized(site: Site, path: Path, size: int) -> bool:
    with requests.Session() as session:
        return Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin", size=size), path)


def test_what_is_not_of_the_published_size_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"size differs from the published one; expected 5 bytes; found {len(DATA)}"):
        sized(site, tmp_path / "a.bin", 5)
    site.announces = False
    with pytest.raises(FetchError, match="size differs from the published one"):
        sized(site, tmp_path / "a.bin", 5)
    assert list(tmp_path.iterdir()) == []
    site.announces = True
    assert sized(site, tmp_path / "a.bin", len(DATA))
    with pytest.raises(FetchError, match=r"size differs from the published one.*remove it and download it again"):
        sized(site, tmp_path / "a.bin", 5)


def test_a_cut_body_of_unknown_length_is_gone_on_with_up_to_the_published_size(site: Site, tmp_path: Path) -> None:
    site.announces, site.cut_after = False, [300_000]
    assert sized(site, tmp_path / "a.bin", len(DATA))
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_what_does_not_fit_is_refused_before_the_first_byte(
    site: Site, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=len(DATA) - 1))
    with pytest.raises(OutputError, match=f"not enough disk space; expected {len(DATA)} bytes; found {len(DATA) - 1}"):
        get(tmp_path / "a.bin")
    assert not any(path.stat().st_size for path in tmp_path.iterdir())


class Packing(Handler):
    """Sends files compressed for the way, whatever was asked for; a range is of the compressed bytes."""

    def send_file(self, data: bytes, wanted: str | None) -> None:
        packed = gzip.compress(data, mtime=0)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.site.ranges else 0
        headers = {"Content-Encoding": "gzip"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(packed) - 1}/{len(packed)}"
        self.reply(206 if start else 200, packed[start:], headers, cut=self.site.take(self.site.cut_after))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_is_compressed_for_the_way_is_never_gone_on_with(ranges: bool, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 64, 200_000, dtype=np.uint8).tobytes()
    with serving(Site({"/a.bin": data}, ranges=ranges, cut_after=[80_000]), Packing) as site:
        with requests.Session() as session:
            assert Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin"), tmp_path / "a.bin")
        assert len(site.asked) > 1
    assert (tmp_path / "a.bin").read_bytes() == data


def test_a_compressed_file_stays_so_where_the_server_calls_it_compressed_for_the_way(tmp_path: Path) -> None:
    data = gzip.compress(DATA)
    site = Site({"/a.csv.gz": data}, headers=[{"Content-Encoding": "x-gzip"}])
    with serving(site), requests.Session() as session:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.csv.gz", digest), tmp_path / "a.csv.gz")
    assert (tmp_path / "a.csv.gz").read_bytes() == data


class Overlong(Handler):
    """Sends more bytes than its Content-Range says."""

    def send_file(self, data: bytes, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        more = b"more" if start else b""
        self.reply(206 if start else 200, data[start:] + more, headers, cut=self.site.take(self.site.cut_after))


def test_a_part_that_is_longer_than_the_server_says_is_begun_anew(tmp_path: Path) -> None:
    with serving(Site({"/a.bin": DATA}, cut_after=[300_000]), Overlong) as site, requests.Session() as session:
        assert Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.bin"), tmp_path / "a.bin")
        assert len(site.asked) == 3
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("name", ["labels.csv", "a.7z", "a.parquet", "README"])
@pytest.mark.parametrize(
    ("page", "kind"),
    [(b"\n<!DOCTYPE html><html>log in</html>", "application/octet-stream"), (b"<!-- x --><HTML>", "text/html")],
)
def test_a_web_page_in_place_of_a_file_is_refused(name: str, page: bytes, kind: str, tmp_path: Path) -> None:
    site = Site({f"/{name}": page}, headers=[{"Content-Type": kind}] * 2)
    with serving(site), requests.Session() as session:
        with pytest.raises(FetchError, match="a web page, and not the file"):
            Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/{name}"), tmp_path / name)
        assert list(tmp_path.iterdir()) == []
        site.files["/a.html"] = page
        assert Downloader(QUIET, session, HASTY).fetch(Remote(f"{site.url}/a.html"), tmp_path / "a.html")


class Waits(threading.Event):
    """The seconds that a downloader would have waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        return False


def test_a_server_is_queried_again_when_it_says(site: Site, tmp_path: Path) -> None:
    with requests.Session() as session:
        waits = Waits()
        downloader = Downloader(QUIET, session, HASTY, waits)
        for told in ("30", format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)):
            site.statuses, site.headers = [503], [{"Retry-After": told}]
            assert downloader.fetch(Remote(f"{site.url}/a.bin"), tmp_path / f"{told}.bin")
        exact, until = waits.seconds
        assert exact == 30
        assert 25 < until <= 30
        site.statuses, site.headers = [429], [{"Retry-After": "86400"}]
        with pytest.raises(FetchError, match="the server requests a wait of 86400 s"):
            downloader.fetch(Remote(f"{site.url}/a.bin"), tmp_path / "b.bin")


# --- sources ---------------------------------------------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.png", data)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def manifest(site: Site, tmp_path: Path, *names: str, **more: Any) -> Manifest:
    """A source whose archives lie on the site."""
    lines = [
        'task = "Mine"',
        'shape = "folders"',
        "[licence]",
        'name = "CC0"',
        f"open = {str(more.get('open', True)).lower()}",
    ]
    lines += ["[obtain]", 'url = "https://example.org/mine"']
    for name in names:
        digest = more.get("digest", "")
        lines += ["[[obtain.archives]]", f'name = "{name}"', f'url = "{site.url}/{name}"', f'digest = "{digest}"']
        lines += [f"size = {more['size']}"] if "size" in more else []
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(lines))
    return load(path)


def fetched(source: Manifest, folder: Path, *, accepted: bool = False) -> fetch.Fetched:
    return fetch.fetch(source, folder, QUIET, accepted=accepted, patience=HASTY)


def test_zip_archives_stay_and_tar_archives_are_unpacked(site: Site, tmp_path: Path) -> None:
    site.files |= {"/a.zip": zipped(x=b"1"), "/b.tar.gz": tarred(("b/good/y.png", b"2"))}
    source, folder = manifest(site, tmp_path, "a.zip", "b.tar.gz"), tmp_path / "mine"
    assert fetched(source, folder).came == ["a.zip", "b.tar.gz"]
    assert list(Source.open(folder, source).sizes) == ["a.zip/x.png", "b.tar.gz", "b/b/good/y.png"]
    site.asked.clear()
    (folder / "b.tar.gz").unlink()  # a user may make room
    assert fetched(source, folder).had == ["a.zip", "b.tar.gz"]
    assert site.asked == []


def test_an_unpacking_that_was_killed_is_done_again(site: Site, tmp_path: Path) -> None:
    site.files["/b.tgz"] = tarred(("y.png", b"2"))
    source, folder = manifest(site, tmp_path, "b.tgz"), tmp_path / "mine"
    (folder / ".b.part").mkdir(parents=True)
    (folder / ".b.part" / "half.png").write_text("")
    (folder / "b.tgz").write_bytes(site.files["/b.tgz"])
    assert fetched(source, folder).came == ["b.tgz"]
    assert [p.name for p in (folder / "b").iterdir()] == ["y.png"]


@pytest.mark.parametrize("name", ["../out.png", "/abs/../../out.png"])
def test_nothing_is_unpacked_outside_the_folder(site: Site, tmp_path: Path, name: str) -> None:
    site.files["/b.tar.gz"] = tarred(("fine.png", b""), (name, b"x"))
    folder = tmp_path / "mine"
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetched(manifest(site, tmp_path, "b.tar.gz"), folder)
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == ["b.tar.gz"]
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize("at", [100, 600, -200])
def test_a_damaged_tar_is_one_line(site: Site, tmp_path: Path, at: int) -> None:
    data = bytearray(tarred(("y.bin", DATA)))
    data[at : at + 40] = bytes(40)
    site.files["/b.tar.gz"] = bytes(data)
    with pytest.raises(FetchError, match=r"cannot be unpacked|not an archive"):
        fetched(manifest(site, tmp_path, "b.tar.gz"), tmp_path / "mine")
    assert not (tmp_path / "mine" / "b").exists()


def test_a_page_instead_of_an_archive_is_not_kept(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"] = b"<html>Please log in</html>"
    with pytest.raises(
        FetchError, match=r"a web page, and not the file.*request it at https://example.org/mine, or put a.zip"
    ):
        fetched(manifest(site, tmp_path, "a.zip"), tmp_path / "mine")
    assert not (tmp_path / "mine" / "a.zip").exists()


def test_a_licence_that_is_not_open_must_be_accepted(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"] = zipped(x=b"1")
    source = manifest(site, tmp_path, "a.zip", open=False)
    with pytest.raises(UsageError, match=r"not under an open licence: CC0.*--accept-licence"):
        fetched(source, tmp_path / "mine")
    assert site.asked == []
    assert fetched(source, tmp_path / "mine", accepted=True).came == ["a.zip"]


def test_a_download_that_does_not_fit_is_not_begun(site: Site, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not enough disk space"):
        fetched(manifest(site, tmp_path, "a.zip", size=1 << 60), tmp_path / "mine")
    assert site.asked == []


def test_two_fetches_into_one_folder_do_not_meet(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with locks.held(folder / ".lock"), pytest.raises(OutputError, match="another `dpconvert fetch`"):
        fetched(manifest(site, tmp_path, "a.zip"), folder)


Run = Callable[..., Answer]


def test_the_command_fetches_and_says_how_to_go_on(site: Site, tmp_path: Path, dpconvert: Run) -> None:
    site.files["/a.zip"] = zipped(x=b"1")
    manifest(site, tmp_path, "a.zip")
    answer = dpconvert("fetch", tmp_path / "mine.toml", "--to", tmp_path / "here", "-q")
    assert (answer.code, answer.err) == (0, "")
    assert "1 archive downloaded, 0 existing" in answer.out
    assert f"dpconvert {tmp_path / 'mine.toml'} --source {tmp_path / 'here'}" in answer.out


def test_the_command_fails_with_one_line(site: Site, tmp_path: Path, dpconvert: Run) -> None:
    manifest(site, tmp_path, "a.zip")
    answer = dpconvert("fetch", tmp_path / "mine.toml", "--to", tmp_path / "here")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "file not found (HTTP 404)" in answer.err


@pytest.mark.parametrize("name", known())
def test_every_source_can_be_fetched_or_says_where_to_ask(name: str, dpconvert: Run, tmp_path: Path) -> None:
    source = find(name)
    if any(archive.url for archive in source.obtain.archives):
        assert all(archive.url.startswith("http") for archive in source.obtain.archives if archive.url)
        return
    answer = dpconvert("fetch", name, "--to", tmp_path / "here")
    assert (answer.code, answer.err) == (1, "")
    assert source.obtain.url in answer.out
    assert f"put these files into {tmp_path / 'here'}" in answer.out
    assert not (tmp_path / "here").exists()


def test_a_numbered_archive_is_fetched_file_by_file_into_its_folder(site: Site, tmp_path: Path) -> None:
    site.files |= {f"/x/n_{n:03}.bin": bytes([n]) for n in (1, 2, 4)}
    archive = {"name": "x/n_{n:03}.bin", "url": site.url + "/x/n_{n:03}.bin", "numbers": [[1, 2], [4, 4]]}
    manifest = Manifest.model_validate(
        {"name": "toy", "task": "Toy", "licence": {"name": "CC0", "open": True}, "obtain": {"archives": [archive]}}
    )
    made = fetch.fetch(manifest, tmp_path, QUIET, accepted=False, patience=HASTY)
    assert made.came == ["x/n_001.bin", "x/n_002.bin", "x/n_004.bin"]
    assert [path.read_bytes() for path in sorted((tmp_path / "x").iterdir())] == [b"\1", b"\2", b"\4"]


def test_camelyon16_is_fetched_as_the_files_that_its_patterns_expect() -> None:
    manifest = find("camelyon16")
    names = [file.name for archive in manifest.obtain.archives for file in archive.files()]
    release = Source(Path(), manifest, dict.fromkeys(names, 0), {})
    assert len(release.match("slides")) == manifest.files["slides"].expected == 270
    assert len(release.match("annotations")) == manifest.files["annotations"].expected == 111

"""Files made to harm: each is one line of ours, within a minute and a gigabyte, and nothing in it is executed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpconvert import errors
from dpconvert.annotations.formats import cytomine
from dpconvert.errors import ReadError, UserError
from dpconvert.image import open_image
from dpconvert.runtime.progress import Reporter
from tests.dpconvert.conftest import Answer, Converted, one_line
from tests.dpconvert.test_convert import where

Get = Callable[[str], Converted]
Call = Callable[..., Answer]
ROOT = Path(__file__).resolve().parents[2]
SECONDS, MIB = 60, 1024

TOLD = {
    "manifest_of_a_key_of_a_hundred_thousand_parts": "DIR/m.toml: not TOML: more than 131072 characters",
    "png_of_2500_megapixels": "too large for a flat image",
    "mask_of_2500_megapixels": "not a readable mask",
    "tiff_of_kilobytes_that_claims_gigabytes": "DIR/a.tif: ",
    "tiff_whose_directory_is_its_own_next": "DIR/a.tif: ",
    "tiff_whose_directories_go_round": "DIR/a.tif: not a readable TIFF: circular or excessively long chain",
    "ndpi_whose_directories_go_round": "DIR/a.ndpi: not a readable TIFF: circular or excessively long chain",
    "tiff_with_a_tile_of_gigabytes": "DIR/a.tif: a tile of 4096 MiB; save it in smaller tiles",
    "tiff_of_ten_million_tags": "DIR/a.tif: not a readable TIFF: circular or excessively long chain",
    "tiff_of_many_sub_images": "DIR/a.tif: not a readable TIFF: circular or excessively long chain",
    "tiff_whose_sub_image_is_itself": "read: (64, 64, 3)",  # tifffile looks at each once
    "tiff_of_two_million_empty_directories": "DIR/a.tif: not a readable TIFF: circular or excessively long chain",
    "ome_tiff_of_a_thousand_million_planes": "DIR/a.tif: not a readable TIFF: OME-XML that states 1000000001 planes",
    "ome_tiff_whose_data_are_a_thousand_million_planes": "OME-XML that states 1000000001 planes",
    "tiff_whose_directories_go_round_by_one_that_is_cut": "circular or excessively long chain of TIFF directories",
    "tiff_whose_directories_go_round_after_a_sub_image_outside": "circular or excessively long chain",
    "ome_tiff_of_fewer_than_no_planes": "OME-XML that states 2000000000 planes",
    "ome_tiff_whose_pixels_do_not_end": "read: (64, 64, 3)",
    "ome_tiff_with_its_planes_outside": "OME-XML that names a file elsewhere, '../a.tif'",
    "micro_manager_stack_of_hundreds_of_millions_of_planes": "read: (64, 64, 3)",  # its first page
    "philips_tiff_of_a_billion_laughs": "DIR/a.tif: not a readable TIFF: XML that defines entities",
    "leica_collection_of_hundreds_of_millions_of_channels": "read: (64, 64, 3)",
    "leica_collection_that_is_no_xml": "read: (64, 64, 3)",
    "mask_tiff_of_gigabytes_left_out": "m.tif: mask too large to be read",
    "zip_member_that_lies_about_its_size": "cannot be read: Bad CRC-32",
    "zip_member_outside": "read: {}",  # passed over, as all hidden files are
    "zip_member_of_an_absolute_name": "archive member outside the archive: /etc/a.png",
    "tar_member_of_an_absolute_name": "archive member outside the archive: /etc/a.png",
    "tar_with_a_header_of_gigabytes": "not a readable tar archive: a header of 3221225472 bytes",
    "tar_gz_with_links_and_devices_outside": "cannot be unpacked: 'a' is a link to an absolute path",
    "tar_gz_with_a_name_outside": "cannot be unpacked: '../a.png' would be extracted to",
    "xml_of_a_billion_laughs": "XML that defines entities",
    "xml_that_reads_a_file": "XML that defines entities",
    "xml_of_depth_a_million": "read: ",
    "xml_of_ten_million_elements": "too much XML",
    "xml_of_three_million_attributes": "too many attributes",
    "csv_of_a_million_columns": "too many columns; expected at most 10000; found 1000001",
    "csv_of_quotes_that_never_end": "line 2: not a readable table: ',' expected after '\"'",
    "mat_of_objects": "'detection' is not a table of points; expected N x 2; found no array of real numbers, 1 x 2",
    "mat_of_a_huge_structure": "found no array of real numbers, 60000 x 60000",
    "json_of_depth_100000": "not JSON: maximum recursion depth",
    "json_of_depth_100000_from_a_server": "recursion limit exceeded",
    "json_of_depth_100000_as_classes": "recursion limit exceeded",
    "json_geometries_in_geometries": "not JSON: maximum recursion depth",
    "wkt_of_depth_100000": "annotation 1: nested collections",
}
LARGE = {
    "png_with_a_text_of_a_gigabyte": "read: (64, 64, 3)",
    "png_with_a_profile_of_a_gigabyte": "read: (64, 64, 3)",
    "zip_member_of_a_gigabyte_in_a_megabyte": "archive member unpacks to 1048576000 bytes",
    "tar_gz_of_gigabytes": "it unpacks to more than 1073741824 bytes",
    "tar_gz_with_a_header_of_gigabytes": "cannot be unpacked: a header of 3221225472 bytes",
    "xml_with_a_name_of_100_megabytes": "another kind of XML",
    "csv_with_a_cell_of_100_megabytes": "a line of more than 16 MiB",
    "csv_with_a_cell_of_100_megabytes_in_lines": "not a readable table: field larger than field limit",
    "csv_of_20_million_rows": "too many lines; expected at most 1000000",
    "points_of_20_million_lines": "too many lines; expected at most 1000000",
    "json_of_five_million_objects": "too much JSON; expected at most 1500000 objects",
    "mat_that_unpacks_to_gigabytes": "a.mat: no variable 'detection'",
    "wkt_of_ten_million_vertices": "characters of WKT",
    "gzip_of_annotations_of_gigabytes": "a gzip file that is cut, or of more than 256 MiB",
}


def outcomes(names: list[str]) -> dict[str, dict[str, Any]]:
    """Run cases in a process of their own."""
    command = [sys.executable, "-m", "tests.dpconvert.hostile", *names]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, ""), process.stderr[-2000:]
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    return {line["case"]: line for line in lines}


@pytest.fixture(scope="module")
def small() -> dict[str, dict[str, Any]]:
    return outcomes(list(TOLD))


@pytest.mark.parametrize("name", TOLD)
def test_a_hostile_file_is_reported_in_one_line_within_bounds(name: str, small: dict[str, dict[str, Any]]) -> None:
    check(small[name], TOLD[name])


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LARGE)
def test_a_large_hostile_file_is_reported_in_one_line_within_bounds(name: str) -> None:
    check(outcomes([name])[name], LARGE[name])


def check(outcome: dict[str, Any], told: str) -> None:
    assert told in outcome["told"]
    assert "\n" not in outcome["told"]
    assert len(outcome["told"]) < 3000
    assert outcome["seconds"] < SECONDS
    assert outcome["mib"] < MIB


# --- names and long lines


def test_errors_are_one_line_without_control_characters_and_of_a_length_to_read() -> None:
    error = UserError("a" * 10**6, where="b\n\x1b[31mc", expected="d" * 10**6, found=b"\0" * 10**6, remedy="mend it")
    told = str(error)
    assert told.isprintable()
    assert len(told) < 7000
    assert r"b\n\x1b[31mc: aaa" in told
    assert told.endswith("; mend it")
    assert errors.cut("x" * 100, 40) == "x" * 20 + " ... " + "x" * 10


def test_progress_and_notes_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter(stream=sys.stderr)
    report.note("image\n\x1b]0;title\x07.png")
    assert capsys.readouterr().err == "image\\n\\x1b]0;title\\x07.png\n"


def test_an_image_named_by_newlines_and_escapes_is_converted_or_reported(
    converted: Get, dpconvert: Call, tmp_path: Path
) -> None:
    manifest = tmp_path / "my.toml"
    manifest.write_text(
        'task = "Evil"\nclasses = ["a", "b"]\nshape = "folders"\n[files.images]\n'
        "pattern = '(?s)(?P<class>[ab])/(?P<name>.+)\\.png$'\n[split.strict]\nshare = [0.4, 0.3, 0.3]\n"
    )
    from tests.dpconvert.test_audit import png, tissue

    for label in "ab":
        (tmp_path / "source" / label).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "source" / label / f"{label}\n\x1b[31m<b>{i}.png").write_bytes(png(tissue(i, 16)))
    answer = dpconvert(manifest, "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1)
    assert answer.code == 0, answer.err
    (broken,) = (tmp_path / "source" / "a").glob("*0.png")
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    answer = dpconvert(manifest, "--source", tmp_path / "source", "--out", tmp_path / "two", "--workers", 1)
    assert answer.code == 1
    assert r"a\n\x1b[31m<b>0.png" in one_line(answer)
    assert "\x1b" not in answer.out + answer.err


# --- manifests


@pytest.mark.parametrize("task", ["../evil", "/tmp/evil", "a/b", "..", ".hidden", "a\nb", ""])
def test_a_task_that_would_be_written_elsewhere_is_refused(task: str, dpconvert: Call, tmp_path: Path) -> None:
    manifest = tmp_path / "my.toml"
    manifest.write_text(f"task = {json.dumps(task)}\nclasses = ['a']\nshape = 'folders'\n")
    answer = dpconvert(manifest, "--source", tmp_path, "--out", tmp_path / "out")
    assert answer.code == 1
    assert "task" in one_line(answer)
    assert not (tmp_path / "out").exists()


def test_a_table_cannot_name_files_outside_the_source(dpconvert: Call, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "t.csv").write_text("file,label\n../secret.png,a\n")
    (tmp_path / "source" / "x.png").write_bytes(b"x")
    manifest = tmp_path / "my.toml"
    manifest.write_text(
        'task = "T"\nclasses = ["a"]\nshape = "table"\n[files.table]\npattern = "csv$"\n[files.images]\n'
        'pattern = "png$"\n[layout]\nfile = "{file}"\nlabel = "label"\n[split.strict]\nshare = [0.4, 0.3, 0.3]\n'
    )
    answer = dpconvert(manifest, "--source", tmp_path / "source", "--out", tmp_path / "out")
    assert answer.code == 1
    assert "no image of this name; expected ../secret.png" in one_line(answer)


# --- what a library would say or change for the whole process


def test_the_limit_of_table_cells_is_left_as_it_was() -> None:
    before = csv.field_size_limit()
    assert len(cytomine.listing(b"id,image\n1,2\n", "a.csv", cytomine.CytomineAnnotation)) == 1
    with pytest.raises(ReadError):
        cytomine.listing(b"id,image\n" + b'"' + b"1" * (17 << 20), "a.csv", cytomine.CytomineAnnotation)
    assert csv.field_size_limit() == before


def test_libtiff_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="lzw", photometric="minisblack")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].dataoffsets[0]
    data[at : at + 12] = b"\xff" * 12
    path.write_bytes(data)
    with pytest.raises(ReadError), open_image([path]) as image:
        image.read(0, 0, 64, 64)
    assert capfd.readouterr().err == ""


# --- secrets


def test_keys_of_a_server_reach_no_file_and_no_line(
    converted: Get, dpconvert: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Cytomine and of storage, whether what is asked for succeeds or fails."""
    secrets = {
        name: f"5ecret-{name.lower()}"
        for name in ("CYTOMINE_PUBLIC_KEY", "CYTOMINE_PRIVATE_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    one = converted("lung")
    answers = [
        dpconvert("lung", *where(one, tmp_path)),
        dpconvert("verify", tmp_path, "--workers", 1),
        dpconvert("audit", tmp_path, "--page", tmp_path / "audit.html", "--workers", 1),
        dpconvert("fetch", "lung", "--to", tmp_path / "f", "--host", "http://127.0.0.1:1", "--project", 7, "--quiet"),
    ]
    assert answers[-1].code == 1
    said = "".join(answer.out + answer.err for answer in answers)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) > 10_000
    for value in secrets.values():
        assert value not in said
        assert value.encode() not in files


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.1:1/[", "5ecret.invalid:x"], ids=["refused", "odd", "port"])
def test_what_an_address_holds_beside_the_place_reaches_no_file_and_no_line(
    host: str, dpconvert: Call, tmp_path: Path
) -> None:
    """Passwords before it, signatures behind it: of archives, and of servers of Cytomine."""
    secret = "5ecret-word"
    manifest = tmp_path / "my.toml"
    manifest.write_text(
        'task = "T"\nclasses = ["a"]\nshape = "folders"\n[files.images]\npattern = "(?P<class>a)/(?P<name>.*)"\n'
        f'[[archives]]\nname = "a.zip"\nurl = "http://{secret}:{secret}@{host}/a.zip?X-Amz-Signature={secret}"\n'
        "[split.strict]\nshare = [0.4, 0.3, 0.3]\n"
    )
    (tmp_path / "to").mkdir()
    server = ("--host", f"http://{secret}:{secret}@{host}/?token={secret}", "--project", 7, "--quiet")
    answers = [
        dpconvert("fetch", manifest, "--to", tmp_path / "to", "--quiet"),
        dpconvert("fetch", "lung", "--to", tmp_path / "f", *server),
    ]
    for answer in answers:
        assert answer.code != 0
        assert secret not in answer.out + answer.err
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != manifest]
    assert secret.encode() not in b"".join(path.read_bytes() for path in written)


def test_addresses_are_shown_without_users_and_queries(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(stream=sys.stderr).note("from https://me:pw@host/a?sig=1")
    assert capsys.readouterr().err == "from https://host/a?***\n"
    error = UserError("x", where="https://me:pw@host:8/a?b=1;s=2#f", found="s3://b/c and HTTP://u@h?t", remedy="a@b?")
    assert str(error) == "https://host:8/a?***: x; found s3://b/c and HTTP://h?***; a@b?"
    assert (
        errors.without_secrets("with url: /a.zip?sig=1 (of 'x://a@b?c=1')") == "with url: /a.zip?*** (of 'x://b?***')"
    )

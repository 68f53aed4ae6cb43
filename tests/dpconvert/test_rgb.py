"""One rule of pixels: files of every kind, read by every reader there is, give the same upright 8-bit RGB."""

from __future__ import annotations

import io
import json
import logging
import struct
import tarfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from dpconvert.annotations import masks
from dpconvert.errors import ReadError
from dpconvert.image import Image, flat, open_image, opening
from dpconvert.image.decode import PNG_CHANNELS, decode, is_plain
from dpconvert.image.guards.pixel_claims import check_claim
from dpconvert.image.rgb import check_bits, eight_bits, orientation_of, to_rgb, upright
from dpconvert.image.turned import Turned
from dpconvert.runtime.progress import Reporter
from dpconvert.tasks.verify import verify
from tests.dpconvert.conftest import Answer

Call = Callable[..., Answer]

TALL, WIDE = 32, 48
random = np.random.default_rng(16)
COLOUR = random.integers(0, 256, (TALL, WIDE, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]
ALPHA = random.integers(0, 256, (TALL, WIDE, 1), dtype=np.uint8)
DEEP = random.integers(0, 1 << 16, (TALL, WIDE, 3), dtype=np.uint16)
DEEP_ALPHA = random.integers(0, 1 << 16, (TALL, WIDE, 1), dtype=np.uint16)
PALETTE = random.integers(0, 256, (16, 3), dtype=np.uint8)
INDEX = random.integers(0, 16, (TALL, WIDE), dtype=np.uint8)
Array = NDArray[Any]


def repeated(grey: Array) -> Array:
    three: Array = np.repeat(grey.reshape(TALL, WIDE, 1), 3, axis=2)
    return three


def over_white(colour: Array, alpha: Array) -> Array:
    """By the definition, to the nearest: colour * alpha + white * (1 - alpha)."""
    exact = (colour.astype(int) * alpha + 255 * (255 - alpha.astype(int))) / 255
    nearest: Array = np.floor(exact + 0.5).astype(np.uint8)
    return nearest


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: Array, colours: int, *extra: bytes) -> bytes:
    """A PNG of 8 or 16 bits, put together by hand (PNG, section 11)."""
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(len(samples), -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 8 * samples.itemsize, colours, 0, 0, 0)
    parts = chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation: int) -> Pillow.Exif:
    tags = Pillow.Exif()
    tags[274] = orientation
    return tags


def in_palette() -> Pillow.Image:
    image = Pillow.new("P", (WIDE, TALL))
    image.putpalette(PALETTE.tobytes())
    image.frombytes(INDEX.tobytes())
    return image


def colormap() -> Array:
    whole = np.zeros((3, 256), np.uint16)
    whole[:, :16] = PALETTE.T.astype(np.uint16) * 257
    return whole


TRANSPARENT = np.array([0, 128, *[255] * 14], np.uint8)
INKS = random.integers(0, 256, (TALL, WIDE, 4), dtype=np.uint8)
TWELVE = random.integers(0, 1 << 12, (TALL, WIDE), dtype=np.uint16)
TEN = random.integers(0, 1 << 10, (TALL, WIDE), dtype=np.uint16)
OF_INKS = np.asarray(Pillow.fromarray(INKS, "CMYK").convert("RGB"))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
HIGH, HIGH_GREY = (DEEP >> 8).astype(np.uint8), repeated(DEEP[:, :, 0] >> 8).astype(np.uint8)
WITH_ALPHA, DEEP_WITH_ALPHA = np.concatenate([COLOUR, ALPHA], 2), np.concatenate([DEEP, DEEP_ALPHA], 2)
PREMULTIPLIED = np.concatenate([np.minimum(COLOUR, ALPHA), ALPHA], 2)
PGM = b"P5 %d %d 65535\n" % (WIDE, TALL) + DEEP[:, :, 0].astype(">u2").tobytes()
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
    'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SignificantBits="12" SizeC="1" SizeZ="1" SizeT="1" '
    f'SizeX="{WIDE}" SizeY="{TALL}"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)
BITS = GREY > 127
ALONE = ["unassalpha"]
TURN = [(274, 3, 1, 6, True)]  # TIFF's tag: the stored first row is the right side
KEYED = np.where((DEEP[:, :, 0] == DEEP[0, 0, 0])[:, :, None], 255, repeated(DEEP[:, :, 0] >> 8)).astype(np.uint8)

# name -> (bytes, what every reader must see)
FILES: dict[str, tuple[bytes, Array]] = {
    "grey.png": (saved(Pillow.fromarray(GREY), "PNG"), repeated(GREY)),
    "rgb.png": (saved(Pillow.fromarray(COLOUR), "PNG"), COLOUR),
    "rgba.png": (png(np.concatenate([COLOUR, ALPHA], 2), 6), over_white(COLOUR, ALPHA)),
    "grey_alpha.png": (png(np.concatenate([COLOUR[:, :, :1], ALPHA], 2), 4), over_white(repeated(GREY), ALPHA)),
    "sixteen.png": (png(DEEP[:, :, :1], 0), repeated(DEEP[:, :, 0] >> 8)),
    "rgb_sixteen.png": (png(DEEP, 2), HIGH),
    "rgba_sixteen.png": (png(np.concatenate([DEEP, DEEP_ALPHA], 2), 6), over_white(DEEP >> 8, DEEP_ALPHA >> 8)),
    "sixteen_keyed.png": (png(DEEP[:, :, :1], 0, chunk(b"tRNS", struct.pack(">H", DEEP[0, 0, 0]))), KEYED),
    "palette.png": (saved(in_palette(), "PNG"), PALETTE[INDEX]),
    "palette_two_bits.png": (saved(in_palette(), "PNG", bits=4), PALETTE[INDEX]),
    "palette_transparent.png": (
        saved(in_palette(), "PNG", transparency=TRANSPARENT.tobytes()),
        over_white(PALETTE[INDEX], TRANSPARENT[INDEX][:, :, None]),
    ),
    "turned.png": (saved(Pillow.fromarray(COLOUR), "PNG", exif=exif(6)), np.rot90(COLOUR, -1)),
    "one_frame.png": (png(COLOUR, 2, chunk(b"acTL", struct.pack(">II", 1, 0))), COLOUR),
    "gamma.png": (png(COLOUR, 2, chunk(b"gAMA", struct.pack(">I", 100_000))), COLOUR),
    "profile.png": (
        saved(Pillow.fromarray(COLOUR), "PNG", icc_profile=PROFILE),
        COLOUR,
    ),
    "rgb.bmp": (saved(Pillow.fromarray(COLOUR), "BMP"), COLOUR),
    "rgba.webp": (
        saved(Pillow.fromarray(np.concatenate([COLOUR, ALPHA], 2)), "WEBP", lossless=True, exact=True),
        over_white(COLOUR, ALPHA),
    ),
    "turned.webp": (saved(Pillow.fromarray(COLOUR), "WEBP", lossless=True, exif=exif(3)), COLOUR[::-1, ::-1]),
    "sixteen.jp2": (bytes(imagecodecs.jpeg2k_encode(DEEP[:, :, 0], level=0, codecformat="jp2")), HIGH_GREY),
    "sixteen.pgm": (PGM, HIGH_GREY),
    "rgb.tif": (tiff(COLOUR, photometric="rgb"), COLOUR),
    "rgb_tiled.tif": (tiff(COLOUR, photometric="rgb", tile=(32, 32)), COLOUR),
    "rgb_tiled_turned.tif": (tiff(COLOUR, photometric="rgb", tile=(16, 16), extratags=TURN), np.rot90(COLOUR, -1)),
    "turned.tif": (tiff(COLOUR, photometric="rgb", extratags=TURN), np.rot90(COLOUR, -1)),
    "sixteen.tif": (tiff(DEEP, photometric="rgb"), HIGH),
    "sixteen_tiled.tif": (tiff(DEEP, photometric="rgb", tile=(16, 16), compression="zlib"), HIGH),
    "planar_sixteen_alpha.tif": (
        tiff(np.moveaxis(DEEP_WITH_ALPHA, 2, 0), photometric="rgb", planarconfig="separate", extrasamples=ALONE),
        over_white(DEEP >> 8, DEEP_ALPHA >> 8),
    ),
    "unassociated.tif": (
        tiff(WITH_ALPHA, photometric="rgb", extrasamples=ALONE),
        over_white(COLOUR, ALPHA),
    ),
    "unassociated_tiled.tif": (
        tiff(WITH_ALPHA, photometric="rgb", extrasamples=ALONE, tile=(16, 16)),
        over_white(COLOUR, ALPHA),
    ),
    "associated.tif": (
        tiff(PREMULTIPLIED, photometric="rgb", extrasamples=["assocalpha"]),
        np.minimum(COLOUR, ALPHA) + (255 - ALPHA),
    ),
    "associated_tiled.tif": (
        tiff(PREMULTIPLIED, photometric="rgb", extrasamples=["assocalpha"], tile=(16, 16)),
        np.minimum(COLOUR, ALPHA) + (255 - ALPHA),
    ),
    "unspecified.tif": (tiff(WITH_ALPHA, photometric="rgb", extrasamples=["unspecified"]), COLOUR),
    "grey_alpha.tif": (
        tiff(WITH_ALPHA[:, :, 2:], photometric="minisblack", planarconfig="contig", extrasamples=ALONE),
        over_white(repeated(COLOUR[:, :, 2]), ALPHA),
    ),
    "inverted.tif": (tiff(GREY, photometric="miniswhite"), 255 - repeated(GREY)),
    "inverted_tiled.tif": (tiff(GREY, photometric="miniswhite", tile=(16, 16)), 255 - repeated(GREY)),
    "palette.tif": (tiff(INDEX, photometric="palette", colormap=colormap()), PALETTE[INDEX]),
    "palette_tiled.tif": (tiff(INDEX, photometric="palette", colormap=colormap(), tile=(16, 16)), PALETTE[INDEX]),
    "twelve.tif": (tiff(TWELVE, photometric="minisblack", bitspersample=12), repeated(TWELVE >> 4).astype(np.uint8)),
    "ten.tif": (tiff(TEN, photometric="minisblack", bitspersample=10), repeated(TEN >> 2).astype(np.uint8)),
    "camera.tif": (
        tiff(TWELVE, photometric="minisblack", extratags=[(281, 3, 1, 4095, True)]),
        repeated(TWELVE >> 4).astype(np.uint8),
    ),
    "fax.tif": (saved(Pillow.fromarray(BITS), "TIFF", compression="group4"), repeated(BITS * np.uint8(255))),
    "four.tif": (tiff(INDEX, photometric="minisblack", bitspersample=4), repeated(INDEX * 17)),
    "cmyk.tif": (tiff(INKS, photometric="separated"), OF_INKS),
    "significant.ome.tif": (
        tiff(TWELVE, photometric="minisblack", description=OME, metadata=None),
        repeated(TWELVE >> 4).astype(np.uint8),
    ),
}
FOLDERS = 'task = "T"\nshape = "folders"\nclasses = ["a", "b"]\n[split.strict]\nshare = [1, 0, 0]\n'
EXACT_IN_PILLOW = {"grey.png", "rgb.png", "palette.png", "palette_two_bits.png", "rgb.bmp", "rgb.tif", "turned.tif"}


def by_parts(image: Image) -> Array:
    """Put together of frames that meet no tile's edge."""
    out = np.zeros((image.height, image.width, 3), np.uint8)
    for y in range(0, image.height, 13):
        for x in range(0, image.width, 11):
            w, h = min(11, image.width - x), min(13, image.height - y)
            out[y : y + h, x : x + w] = image.read(x, y, w, h)
    return out


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Array]:
    path = tmp_path / request.param
    path.write_bytes(FILES[request.param][0])
    return path, FILES[request.param][1]


def test_every_reader_sees_the_same(file: tuple[Path, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    path, expected = file
    np.testing.assert_array_equal(flat(path), expected)
    np.testing.assert_array_equal(flat(io.BytesIO(path.read_bytes())), expected)
    for large in (opening.LARGE, 0):  # as a whole, and piece by piece
        monkeypatch.setattr(opening, "LARGE", large)
        with open_image([path]) as image:
            assert (image.height, image.width) == expected.shape[:2]
            np.testing.assert_array_equal(by_parts(image), expected)


def test_pillow_s_own_rgb_is_the_same_where_its_rule_is_ours(tmp_path: Path) -> None:
    for name in EXACT_IN_PILLOW:
        with Pillow.open(io.BytesIO(FILES[name][0])) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), FILES[name][1], name)


def test_what_is_stored_looks_the_same_to_readers_that_know_no_rule(dpconvert: Call, tmp_path: Path) -> None:
    """Pillow's `convert("RGB")`, as data sets of others call it, with and without turning by EXIF; and `verify`."""
    for number, name in enumerate(FILES):
        folder = tmp_path / "src" / ("ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / unique(name)).write_bytes(FILES[name][0])
    pattern = "[files.images]\npattern = '^(?P<class>[ab])/(?P<name>.+)$'\n"
    (tmp_path / "m.toml").write_text(FOLDERS + pattern)
    source = {
        f"{'ab'[number % 2]}/{unique(name)}": expected for number, (name, (_, expected)) in enumerate(FILES.items())
    }
    assert (
        dpconvert(tmp_path / "m.toml", "--source", tmp_path / "src", "--out", tmp_path / "out", "--workers", 1).code
        == 0
    )
    stored = members(tmp_path / "out" / "T")
    assert len(stored) == len(FILES)
    for expected, data in ((source[text], data) for text, data in stored):
        np.testing.assert_array_equal(decode(data), expected)
        for reader in (lambda image: image, ImageOps.exif_transpose):
            with Pillow.open(io.BytesIO(data)) as image:
                np.testing.assert_array_equal(np.asarray(reader(image).convert("RGB")), expected)
    assert not verify_problems(tmp_path / "out" / "T")


def members(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            read = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
        for name, data in read.items():
            if name.endswith((".png", ".jpg")):
                found.append((json.loads(read[name[:-4] + ".json"])["files"][0], data))
    return found


def unique(name: str) -> str:
    """A name whose part before the ending is the only one."""
    stem, _, ending = name.partition(".")
    return f"{stem}_{ending.replace('.', '_')}.{ending}"


def verify_problems(folder: Path) -> list[Any]:
    return verify(folder, workers=1, report=Reporter(quiet=True))[1]


# --- JPEG


def test_a_turned_photograph_is_upright_and_its_copy_has_no_tag(dpconvert: Call, tmp_path: Path) -> None:
    for orientation in range(1, 9):
        data = saved(Pillow.fromarray(COLOUR), "JPEG", exif=exif(orientation), quality=95)
        with Pillow.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(decode(data), expected)
        assert is_plain(data) == (orientation == 1)


def test_an_orientation_in_xmp_counts_as_in_pillow() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    data = saved(Pillow.fromarray(COLOUR), "JPEG", xmp=xmp)
    assert orientation_of(data) == 8
    assert decode(data).shape == (WIDE, TALL, 3)


def test_cmyk_as_adobe_writes_it_is_inverted() -> None:
    data = saved(Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(decode(data).astype(int) - (255, 0, 0)).max() <= 2
    assert not is_plain(data)


def test_a_jpeg_of_twelve_bits_keeps_its_upper_eight() -> None:
    smooth = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = bytes(imagecodecs.jpeg_encode(smooth, bitspersample=12, level=100))
    assert np.abs(decode(data)[:, :, 0].astype(int) - (smooth >> 4)).max() <= 1


def test_a_stored_mark_of_a_corrupt_exif_part_changes_nothing_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = saved(Pillow.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat(tmp_path / "a.jpg")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("library", ["PIL", "imagecodecs", "tifffile"])
def test_what_a_library_logs_is_not_printed(library: str, tmp_path: Path) -> None:
    """As imagecodecs logs what libpng says of profiles, times and texts beside the pixels of a PNG."""
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(decode(png(pixels, 2, chunk(b"tIME", bytes(7)))), pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    flat(tmp_path / "a.tif")
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger(library).handlers)


def test_a_mask_lies_on_its_upright_photograph_and_its_own_tag_is_applied(tmp_path: Path) -> None:
    mask = Pillow.fromarray((np.arange(TALL * WIDE) % 2).astype(np.uint8).reshape(TALL, WIDE))
    for kind in ("PNG", "TIFF"):
        turned = saved(mask, kind, exif=exif(6))
        found = masks.read(turned, "m", {0: "no", 1: "yes"}, (TALL, WIDE))
        np.testing.assert_array_equal(found.values, np.rot90(np.asarray(mask), -1))
    with pytest.raises(ReadError, match="mask of another shape than its image"):
        masks.read(saved(mask, "PNG"), "m", {0: "no", 1: "yes"}, (TALL, WIDE))


# --- JPEG in TIFF


def jpeg_tiles(tag: int, marker: int | None, *, side: int = 256) -> tuple[bytes, Array]:
    """A TIFF of one JPEG tile of YCbCr, whose tag may say otherwise; its colour (223, 151, 189)."""
    plain = np.full((side, side, 3), (223, 151, 189), np.uint8)
    data = imagecodecs.jpeg8_encode(plain, level=95, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    at = data.index(b"\xff\xe0")
    rest = data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    adobe = b"" if marker is None else b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([marker])
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        iter([b"\xff\xd8" + adobe + rest]),
        shape=plain.shape,
        dtype=np.uint8,
        photometric="rgb",
        compression="jpeg",
        tile=(side, side),
    )
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as written:
        at = written.pages.first.tags[262].valueoffset
    data = bytearray(buffer.getvalue())
    struct.pack_into("<H", data, at, tag)
    return bytes(data), plain


@pytest.mark.parametrize(("tag", "marker"), [(2, 1), (6, 1), (6, None)])
@pytest.mark.parametrize("side", [64, 128, 256])
def test_a_stream_s_own_marker_of_its_colours_counts_at_every_size_of_patch(
    tag: int, marker: int | None, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plain = jpeg_tiles(tag, marker)
    (tmp_path / "a.tif").write_bytes(data)
    for large in (opening.LARGE, 0):
        monkeypatch.setattr(opening, "LARGE", large)
        with open_image([tmp_path / "a.tif"]) as image:
            assert np.abs(image.read(0, 0, side, side).astype(int) - plain[0, 0]).max() <= 2
            passed = image.stored_jpeg(0, 0, side, side, out=(side, side))
            assert passed is None or np.abs(decode(passed).astype(int) - plain[0, 0]).max() <= 2
    assert np.abs(flat(io.BytesIO(data)).astype(int) - plain[0, 0]).max() <= 2


def test_openslide_goes_by_the_tag_which_is_why_it_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(jpeg_tiles(2, 1)[0])
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert np.asarray(slide.read_region((0, 0), 0, (1, 1)))[0, 0, :3].tolist() != [223, 151, 189]


@pytest.mark.parametrize("tag", ["rgb", "ycbcr"])
def test_jpeg_2000_of_aperio_is_ycbcr_for_every_reader_whatever_its_tag(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = np.full((64, 64, 3), (223, 151, 189), np.uint8)
    tile = np.asarray(Pillow.fromarray(plain).convert("YCbCr"))
    stream = imagecodecs.jpeg2k_encode(tile, reversible=True, mct=False, codecformat="j2k")
    for name, description in (("a.svs", "Aperio Image Library v1 |MPP = 0.5"), ("a.tif", None)):
        tifffile.imwrite(
            tmp_path / name,
            iter([stream]),
            shape=plain.shape,
            dtype=np.uint8,
            photometric=tag,
            compression=33003,
            tile=(64, 64),
            description=description,
            metadata=None,
        )
        for large in (opening.LARGE, 0):
            monkeypatch.setattr(opening, "LARGE", large)
            with open_image([tmp_path / name]) as image:
                assert np.abs(image.read(0, 0, 64, 64).astype(int) - plain).max() <= 4
        assert np.abs(flat(io.BytesIO((tmp_path / name).read_bytes())).astype(int) - plain).max() <= 4


# --- what the rule has nothing for


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.full((16, 16, 3), 0.5, np.float32), r"float32 samples: .*`range = \[0, 1\]` under \[pixels\]"),
        (np.full((16, 16, 3), -5, np.int16), r"int16 samples: .*`range = \[0, 32767\]`"),
        (np.full((16, 16, 3), 1 << 20, np.uint32), r"uint32 samples: .*`range"),
        (np.full((16, 16, 3), 3776, np.uint16), r"no sample above 3776, .* of 12 bits\?; .*4095"),
        (np.full((16, 16, 3), 220, np.uint16), r"no sample above 220, .* of 8 bits\?; .*\[0, 255\]"),
    ],
)
@pytest.mark.parametrize("large", [opening.LARGE, 0])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_samples_without_a_known_white_are_refused(
    samples: Array,
    message: str,
    large: int,
    tile: tuple[int, int] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "LARGE", large)
    (tmp_path / "a.tif").write_bytes(tiff(samples, photometric="rgb", tile=tile))
    with pytest.raises(ReadError, match=message), open_image([tmp_path / "a.tif"]) as image:
        image.read(0, 0, 16, 16)


@pytest.mark.parametrize("large", [opening.LARGE, 0])
def test_a_stated_range_scales_them(large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 1023.75 of 4095 is a quarter of 255, 63.75; what lies beyond is cut off."""
    monkeypatch.setattr(opening, "LARGE", large)
    for samples, scale, expected in (
        (np.array([[0, 1024, 4095, 5000]] * 4, np.uint16), (0.0, 4095.0), [0, 64, 255, 255]),
        (np.array([[0, 0.25, 1, np.nan]] * 4, np.float32), (0.0, 1.0), [0, 64, 255, 0]),
        (np.array([[-100, 0, 100, 300]] * 4, np.int16), (-100.0, 100.0), [0, 128, 255, 255]),
        (np.array([[0, 10, 128, 255]] * 4, np.uint8), (0.0, 4095.0), [0, 10, 128, 255]),
    ):
        (tmp_path / "a.tif").write_bytes(tiff(samples, photometric="minisblack"))
        with open_image([tmp_path / "a.tif"], scale=scale) as image:
            assert image.read(0, 0, 4, 4)[2, :, 1].tolist() == expected


def test_fractions_in_a_range_of_levels_are_refused_and_levels_in_one_of_fractions() -> None:
    fractions, levels = np.linspace(0, 1, 16).reshape(4, 4), np.arange(0, 4096, 256, dtype=np.uint16).reshape(4, 4)
    with pytest.raises(ValueError, match=r"samples from 0 to 1, where `range` .* states 0 to 255"):
        check_bits(fractions, scale=(0, 255))
    with pytest.raises(ValueError, match=r"samples from 0 to 3840, where `range` .* states 0 to 1"):
        check_bits(levels, scale=(0, 1))
    check_bits(fractions, scale=(0, 1))
    check_bits(levels, scale=(0, 4095))
    check_bits(np.zeros((4, 4)), scale=(0, 255))  # black
    check_bits(np.array([[0.0, 1.0]]), scale=(0, 255))  # may be levels
    check_bits(levels.astype(np.uint8), scale=(0, 1))  # of 8 bits, which take no range


@pytest.mark.parametrize("large", [opening.LARGE, 0])
def test_signed_samples_that_imagej_keeps_as_unsigned_are_refused(
    large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its description adds -32768 to each: as they are stored, black would be grey."""
    monkeypatch.setattr(opening, "LARGE", large)
    samples = np.arange(32_768, 65_536, 2048, dtype=np.uint16).reshape(4, 4)
    for zero in (-32_768.0, 0.0):
        tifffile.imwrite(tmp_path / "a.tif", samples, imagej=True, metadata={"c0": zero, "c1": 1.0})
        if zero:
            with (
                pytest.raises(ReadError, match="signed samples, which ImageJ keeps as unsigned ones"),
                open_image([tmp_path / "a.tif"]) as image,
            ):
                image.read(0, 0, 4, 4)
        else:
            with open_image([tmp_path / "a.tif"]) as image:
                assert (image.read(0, 0, 4, 4)[..., 0] == samples >> 8).all()


def test_samples_far_above_a_stated_white_are_refused() -> None:
    """Of 16 bits in a range of 12, say: all of the image would be white."""
    bright = np.full((4, 4), 60_000, np.uint16)
    with pytest.raises(ValueError, match=r"samples from 0 to 60000, where `range` .* states 0 to 4095"):
        check_bits(bright, scale=(0, 4095))
    bright[:2] = 3000
    check_bits(bright, scale=(0, 4095))  # half of it
    check_bits(np.full((4, 4), 3600, np.uint16), scale=(0, 3000))  # glass that is to be white


@pytest.mark.parametrize("large", [opening.LARGE, 0])
@pytest.mark.parametrize("suffix", ["tif", "ome.tif"])
def test_a_range_that_a_tiff_contradicts_is_refused_however_it_is_read(
    large: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fractions in slides that are read piece by piece became black."""
    monkeypatch.setattr(opening, "LARGE", large)
    samples = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    tifffile.imwrite(tmp_path / f"a.{suffix}", samples, photometric="rgb", tile=(16, 16), ome=suffix == "ome.tif")
    told = r"samples from 0 to 1, where `range` .* states 0 to 255"
    with pytest.raises(ReadError, match=told), open_image([tmp_path / f"a.{suffix}"], scale=(0, 255)) as image:
        image.read(0, 0, 16, 16)
    with open_image([tmp_path / f"a.{suffix}"], scale=(0, 1)) as image:
        assert np.abs(image.read(0, 0, 64, 64) - samples * 255.0).max() <= 0.51


def test_samples_around_zero_are_refused_in_a_range_from_zero() -> None:
    """As networks take them: most would become black."""
    signed = np.linspace(-1, 1, 16).reshape(4, 4)
    for samples in (signed, signed * 2.5):
        for scale in ((0.0, 1.0), (0.0, 255.0)):
            with pytest.raises(ValueError, match=r"samples from -.* where `range` .* states 0 to"):
                check_bits(samples, scale=scale)
    check_bits(signed, scale=(-1, 1))
    check_bits(np.where(signed < -0.9, -0.02, np.abs(signed)), scale=(0, 1))  # overshoots of a resampling filter
    check_bits(np.linspace(-40, 900, 16).reshape(4, 4), scale=(0, 4095))  # levels less those of the background


def test_sixteen_dark_bits_are_black_when_all_are_and_refused_in_a_png_too() -> None:
    check_bits(np.zeros((4, 4), np.uint16))
    check_bits(np.full((4, 4), 1 << 14, np.uint16))
    with pytest.raises(ValueError, match="of 14 bits"):
        check_bits(np.full((4, 4), (1 << 14) - 1, np.uint16))
    dark = png(np.full((4, 4, 1), 3000, np.uint16), 0)
    with pytest.raises(ReadError, match=r"no sample above 3000.*under \[pixels\]"):
        flat(io.BytesIO(dark))
    assert decode(dark)[0, 0, 0] == 3000 >> 8  # in a shard of an older version


def test_a_manifest_states_the_range(dpconvert: Call, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "src" / label).mkdir(parents=True)
        (tmp_path / "src" / label / "x.tif").write_bytes(tiff(np.full((8, 8, 3), 2048, np.uint16), photometric="rgb"))
    text = FOLDERS + "[pixels]\nrange = RANGE\n"
    (tmp_path / "m.toml").write_text(text.replace("RANGE", "[0, 4095]"))
    assert (
        dpconvert(tmp_path / "m.toml", "--source", tmp_path / "src", "--out", tmp_path / "out", "--workers", 1).code
        == 0
    )
    assert {decode(data).mean() for _, data in members(tmp_path / "out" / "T")} == {128.0}
    (tmp_path / "m.toml").write_text(text.replace("RANGE", "[4095, 0]"))
    refused = dpconvert(tmp_path / "m.toml", "--source", tmp_path / "src", "--out", tmp_path / "out2")
    assert refused.code == 1
    assert "black before white" in refused.err


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_animation_is_refused_by_conversion_and_loader_alike(kind: str) -> None:
    frames = [Pillow.fromarray(np.roll(COLOUR, 7 * n, 0)) for n in range(3)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ReadError, match="an animation of 3 images, where one is expected; save the one that is meant"):
        flat(io.BytesIO(data))
    if kind == "PNG":
        with pytest.raises(ValueError, match="an animation of 3 images"):
            decode(data)


def test_several_channels_that_are_no_colours_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(COLOUR, photometric="minisblack", planarconfig="contig"))
    for large in (opening.LARGE, 0):
        monkeypatch.setattr(opening, "LARGE", large)
        with pytest.raises(ReadError, match="3 channels, of which 2 have no known meaning"):
            flat(tmp_path / "a.tif")


# --- good files that look hostile


@pytest.mark.usefixtures("slow_png")
def test_a_large_empty_mask_is_a_good_file() -> None:
    for width, height, of_a_pixel in ((10_000, 5_000, 1), (20_000, 8_000, 1 / 8)):
        check_claim(width, height, int(width * height * of_a_pixel / 1000), of_a_pixel)
    data = saved(Pillow.new("L", (10_000, 5_000), 255), "PNG")
    assert len(data) < 100_000
    assert decode(data).shape == (5_000, 10_000, 3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (256, 256)},
        {"tile_size": (64, 64)},
        {"precinct_size": (128, 128), "codeblock_size": (32, 32)},
        {"codeblock_size": (4, 4)},
        {"quality_layers": list(range(60, 0, -5))},
    ],
)
def test_a_jpeg_2000_of_any_usual_layout_is_a_good_file(options: dict[str, Any]) -> None:
    smooth = Pillow.fromarray(COLOUR).resize((640, 480))
    assert flat(io.BytesIO(saved(smooth, "JPEG2000", **options))).shape == (480, 640, 3)


# --- parts


class Stored(Image):
    """Pixels as a file stores them."""

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def _read(self, x: int, y: int, w: int, h: int, out: tuple[int, int]) -> Array:
        assert out == (w, h)
        return self.pixels[y : y + h, x : x + w]


@given(st.integers(1, 8), st.data())
def test_any_frame_of_a_turned_image_is_that_of_the_upright_one(orientation: int, data: st.DataObject) -> None:
    whole = upright(COLOUR, orientation)
    image = Turned(Stored(COLOUR), orientation)
    assert (image.height, image.width) == whole.shape[:2]
    x, y = data.draw(st.integers(0, image.width - 1)), data.draw(st.integers(0, image.height - 1))
    w, h = data.draw(st.integers(1, image.width - x)), data.draw(st.integers(1, image.height - y))
    np.testing.assert_array_equal(image.read(x, y, w, h), whole[y : y + h, x : x + w])


@given(st.integers(1, 16), st.integers(0, (1 << 16) - 1))
def test_eight_bits_reach_from_black_to_white(bits: int, value: int) -> None:
    largest = (1 << bits) - 1
    samples = np.array([[0, value & largest, largest]], np.uint16 if bits > 8 else np.uint8)
    low, between, high = eight_bits(samples, bits)[0].tolist()
    assert (low, high) == (0, 255)
    assert abs(between - (value & largest) / largest * 255) <= 1


@pytest.mark.parametrize("colours", PNG_CHANNELS)
def test_cmyk_needs_four_channels(colours: int) -> None:
    with pytest.raises(ValueError, match="channels of CMYK"):
        to_rgb(np.zeros((2, 2, 3), np.uint8), space="CMYK")

"""What a TIFF holds: its image among other pages, its channels, its resolution; the same below and above the limit."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from dpconvert.errors import ReadError
from dpconvert.image import Image, open_image, opening
from dpconvert.image.spacing import CONTRADICTION, micrometres
from dpconvert.image.tiff.tiff_layout import PAGES, PLANES
from dpconvert.source.files import ArchiveMember

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@pytest.fixture(params=["whole", "piece by piece", "in an archive"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How an image is read: small, as if above the limit, or out of an archive."""
    if request.param == "piece by piece":
        monkeypatch.setattr(opening, "LARGE", 0)
    return str(request.param)


def opened(path: Path, kind: str) -> Image:
    return open_image([ArchiveMember(path.read_bytes(), path) if kind == "in an archive" else path])


def drawn(width: int, height: int, seed: int = 0, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pixels_of(image: Image) -> NDArray[np.uint8]:
    return image.read(0, 0, image.width, image.height)


def ome(*images: str, uuid: str = "", head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> str:
    return f'{head}<OME xmlns="{OME}"{f" UUID={uuid!r}" if uuid else ""}>{"".join(images)}</OME>'


def ome_image(number: int, side: int, data: str = '<TiffData IFD="0" PlaneCount="1"/>', **sizes: str) -> str:
    told = "".join(f' {name}="{value}"' for name, value in sizes.items())
    return (
        f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="uint8" SizeX="{side}"'
        f' SizeY="{side}" SizeC="3" SizeZ="1" SizeT="1"{told}><Channel ID="Channel:{number}:0" SamplesPerPixel="3"/>'
        f"{data}</Pixels></Image>"
    )


def in_file(name: str, uuid: str, ifd: int = 0) -> str:
    return f'<TiffData IFD="{ifd}" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("thumbnail_first", [True, False])
def test_the_largest_page_is_the_image_and_the_other_is_reported(
    kind: str, thumbnail_first: bool, tile: Any, tmp_path: Path
) -> None:
    thumbnail, whole = drawn(48, 32, 1), drawn(128, 96, 2)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (thumbnail, whole) if thumbnail_first else (whole, thumbnail):
            tiff.write(page, photometric="rgb", tile=tile, compression="zlib", metadata=None)
    with opened(tmp_path / "a.tif", kind) as image:
        assert (pixels_of(image) == whole).all()
        assert image.notes == (PAGES,)


def test_reduced_copies_and_masks_are_neither_the_image_nor_reported(kind: str, tmp_path: Path) -> None:
    whole = drawn(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(drawn(128, 128, 1), photometric="rgb", subfiletype=1, metadata=None)  # claims to be a copy
        tiff.write(whole, photometric="rgb", metadata=None)
        tiff.write(np.ascontiguousarray(whole[::2, ::2]), photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(np.ones((256, 256), bool), photometric="mask", subfiletype=4, metadata=None)
    with opened(tmp_path / "a.tif", kind) as image:
        assert (pixels_of(image) == whole).all()
        assert image.notes == ()


def test_a_sub_image_that_is_larger_than_its_page_is_the_image(kind: str, tmp_path: Path) -> None:
    whole = drawn(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(drawn(16, 16, 1), photometric="rgb", subifds=1, metadata=None)
        tiff.write(whole, photometric="rgb", metadata=None)
    with opened(tmp_path / "a.tif", kind) as image:
        assert (pixels_of(image) == whole).all()
        assert image.notes == (PAGES,)


def test_a_resolution_in_the_tags_that_contradicts_ome_xml_is_reported(kind: str, tmp_path: Path) -> None:
    for name, per_cm in (("same", 40_000), ("near", 40_400), ("other", 20_000), ("screen", 28)):
        stated = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        unit: Any = "CENTIMETER"
        options = {"photometric": "rgb", "resolution": (per_cm, per_cm), "resolutionunit": unit, "metadata": stated}
        tifffile.imwrite(tmp_path / f"{name}.tif", drawn(32, 32), ome=True, **options)
        with opened(tmp_path / f"{name}.tif", kind) as image:
            assert (image.mpp, image.notes) == (0.25, (CONTRADICTION,) if name == "other" else ()), name


def test_a_half_sized_page_that_is_not_flagged_is_no_coarser_level(kind: str, tmp_path: Path) -> None:
    whole = np.full((64, 64, 3), 200, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(whole, photometric="rgb", metadata=None)
        tiff.write(np.zeros((32, 32, 3), np.uint8), photometric="rgb", metadata=None)  # something else
    with opened(tmp_path / "a.tif", kind) as image:
        assert (image.read(0, 0, 64, 64, out=(16, 16)) == 200).all()
        assert image.notes == (PAGES,)


def test_three_pages_of_an_imagej_file_are_its_colours(kind: str, tmp_path: Path) -> None:
    rgb = drawn(60, 50)
    options = {"resolution": (4.0, 4.0), "metadata": {"axes": "CYX", "unit": "um"}}
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(np.moveaxis(rgb, 2, 0)), imagej=True, **options)
    with opened(tmp_path / "a.tif", kind) as image:
        assert (pixels_of(image) == rgb).all()
        assert image.mpp == pytest.approx(0.25)


RAMP = np.arange(256, dtype=np.uint8)
TABLES = [np.outer(colour, RAMP).astype(np.uint8) for colour in ((0, 0, 1), (0, 1, 0), (1, 0, 0))]  # blue comes first


@pytest.mark.parametrize(
    "stated",
    [
        {"Labels": ["Blue", "Green", "Red"] * 2},
        {"LUTs": TABLES, "mode": "composite"},
        {"Labels": [f"c:{number % 3 + 1}/3 - a.tif" for number in range(6)], "LUTs": TABLES},
    ],
)
def test_channels_of_an_imagej_file_are_put_in_the_order_that_it_states(
    kind: str, stated: dict[str, Any], tmp_path: Path
) -> None:
    rgb = drawn(60, 50)
    planes = np.moveaxis(rgb[..., ::-1], 2, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([planes, 255 - planes]), imagej=True, metadata={"axes": "ZCYX"} | stated
    )
    with opened(tmp_path / "a.tif", kind) as image:
        assert (pixels_of(image) == rgb).all()
        assert image.notes == (PLANES,)


@pytest.mark.parametrize("program", ["ImageJ", "PerkinElmer-QPI"])
def test_three_stains_of_fluorescence_without_ome_xml_are_no_colours(program: str, tmp_path: Path) -> None:
    stains, planes = ["DAPI", "FITC", "Cy5"], np.moveaxis(drawn(60, 50), 2, 0)
    if program == "ImageJ":
        tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, metadata={"axes": "CYX", "Labels": stains})
    else:
        head, name = '<?xml version="1.0" encoding="utf-16"?>\r\n', "PerkinElmer-QPI-ImageDescription"
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for stain, plane in zip(stains, planes, strict=True):
                told = f"{head}<{name}><Name>{stain}</Name><ImageType>FullResolution</ImageType></{name}>"
                tiff.write(plane, photometric="minisblack", description=told, software=program, metadata=None)
    with pytest.raises(ReadError, match=r"the three channels are not colours; .* found DAPI, FITC, Cy5"):
        open_image([tmp_path / "a.tif"])


@pytest.mark.parametrize("writer", ["imagej", "ome"])
def test_channels_that_are_no_colours_are_refused(kind: str, writer: Any, tmp_path: Path) -> None:
    channels = drawn(60, 50, channels=1).reshape(1, 50, 60).repeat(5, 0)
    path = tmp_path / ("a.ome.tif" if writer == "ome" else "a.tif")
    tifffile.imwrite(path, channels, **{writer: True}, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(ReadError, match=r"5 channels.*expected RGB, or one or three channels; export it as RGB"):
        opened(path, kind)


@pytest.mark.parametrize("writer", ["imagej", "ome"])
def test_of_a_stack_the_first_plane_is_read_and_that_is_reported(kind: str, writer: Any, tmp_path: Path) -> None:
    planes = np.stack([drawn(60, 50, seed) for seed in range(4)])
    path = tmp_path / ("a.ome.tif" if writer == "ome" else "a.tif")
    tifffile.imwrite(path, planes, **{writer: True}, photometric="rgb", metadata={"axes": "ZYXS"})
    with opened(path, kind) as image:
        assert (pixels_of(image) == planes[0]).all()
        assert image.notes == (PLANES,)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}, (0.25, 0.5)),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, (0.5, 0.5)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, (None, None)),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_the_resolution_of_the_tags_is_that_of_every_reader(
    kind: str, tags: dict[str, Any], spacing: tuple[float, float], tile: Any, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", drawn(60, 50), photometric="rgb", tile=tile, metadata=None, **tags)
    with opened(tmp_path / "a.tif", kind) as image:
        assert (image.spacing.x, image.spacing.y) == spacing


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("unit", ["um", "micron", "microns", "µm", "\\u00B5m"])
def test_imagej_counts_pixels_in_a_unit_of_its_own(kind: str, unit: str, tile: Any, tmp_path: Path) -> None:
    description = f"ImageJ=1.54f\nunit={unit}\n".encode("latin-1")
    tags = {"resolution": (4.0, 2.0), "resolutionunit": "NONE", "description": description, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", drawn(60, 50), photometric="rgb", tile=tile, **tags)
    with opened(tmp_path / "a.tif", kind) as image:
        assert (image.spacing.x, image.spacing.y) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [
        ("0.25", None, 0.25),
        ("0.25", "µm", 0.25),
        ("0.25", "μm", 0.25),
        ("0.25", "&#181;m", 0.25),
        ("0.25", "&#xB5;m", 0.25),
        ("0.25", "&#956;m", 0.25),
        ("0.25", "&micro;m", 0.25),
        ("0.25", "um", 0.25),
        ("0.25", "micron", 0.25),
        ("2.5e-4", "mm", 0.25),
        ("250", "nm", 0.25),
        ("0.000025", "cm", 0.25),
        ("2.5E-7", "m", 0.25),
        ("2500", "Å", 0.25),
        ("0.25", "Âµm", 0.25),
        ("0.5", "nm", None),
        ("0.25", "pixel", None),
        ("a", "µm", None),
    ],
)
def test_every_spelling_of_a_length_in_ome_xml(
    kind: str, size: str, unit: str | None, mpp: float | None, tmp_path: Path
) -> None:
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    text = ome(ome_image(0, 32, PhysicalSizeX=size, PhysicalSizeY=size, **units))
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, drawn(32, 32), photometric="rgb", description=text.encode(), metadata=None, tile=(16, 16))
    with opened(path, kind) as image:
        assert image.mpp == (None if mpp is None else pytest.approx(mpp))
        assert image.mpp is not None or image.spacing.stated == f"{size} {unit}"


def test_units_as_people_spell_them() -> None:
    assert [micrometres(unit) for unit in ("Micrometre", "inches", "\u212b", "mil", "furlong", "")] == [
        1,
        25_400,
        1e-4,
        25.4,
        None,
        None,
    ]


def of_several_files(folder: Path) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """OME-TIFFs of one image each, every one of which lists both, with other resolutions."""
    images = [ome_image(n, 32, in_file(f"s{n}.ome.tif", f"urn:uuid:{n}"), PhysicalSizeX=f"0.{n + 2}") for n in range(2)]
    for number in range(2):
        path, pixels = folder / f"s{number}.ome.tif", drawn(32, 32, number)
        text = ome(*images, uuid=f"urn:uuid:{number}")
        tifffile.imwrite(path, pixels, photometric="rgb", description=text, metadata=None)
        yield path, pixels


def test_each_file_of_an_ome_set_gives_its_own_image(kind: str, tmp_path: Path) -> None:
    for number, (path, pixels) in enumerate(of_several_files(tmp_path)):
        with opened(path, kind) as image:
            assert (pixels_of(image) == pixels).all()
            assert image.mpp == pytest.approx((number + 2) / 10)
            assert image.notes == ()


def test_a_file_of_an_ome_set_is_known_under_another_name_and_without_the_others(kind: str, tmp_path: Path) -> None:
    (first, _), (second, pixels) = of_several_files(tmp_path)
    first.unlink()
    second = second.rename(tmp_path / "renamed.ome.tif")
    with opened(second, kind) as image:
        assert (pixels_of(image) == pixels).all()
        assert image.mpp == pytest.approx(0.3)


def test_of_several_images_in_an_ome_tiff_the_largest_is_read_with_its_own_resolution(
    kind: str, tmp_path: Path
) -> None:
    text = ome(
        ome_image(0, 16, '<TiffData IFD="0" PlaneCount="1"/>', PhysicalSizeX="8"),
        ome_image(1, 48, '<TiffData IFD="1" PlaneCount="1"/>', PhysicalSizeX="0.5"),
    )
    label, slide = drawn(16, 16, 1), drawn(48, 48, 2)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(label, photometric="rgb", description=text, metadata=None)
        tiff.write(slide, photometric="rgb", metadata=None)
    with opened(tmp_path / "a.ome.tif", kind) as image:
        assert (pixels_of(image) == slide).all()
        assert (image.mpp, image.notes) == (0.5, (PAGES,))


@pytest.mark.parametrize("name", ["macro", "Label image", "a.svs [thumbnail]"])
def test_the_macro_image_of_an_ome_tiff_is_not_the_slide_however_large(kind: str, name: str, tmp_path: Path) -> None:
    macro, whole = drawn(192, 128, 1), drawn(128, 96, 2)
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tiff:
        for called, pixels in ((name, macro), ("a slide", whole)):
            tiff.write(pixels, photometric="rgb", tile=(16, 16), metadata={"axes": "YXS", "Name": called})
    with opened(tmp_path / "a.tif", kind) as image:
        assert (image.read(0, 0, image.width, image.height) == whole).all()
        assert any("the largest page is read" in note for note in image.notes)


def test_metadata_in_a_companion_file(tmp_path: Path) -> None:
    data = in_file("a.ome.tif", "urn:uuid:1")
    (tmp_path / "set.companion.ome").write_text(ome(ome_image(0, 32, data, PhysicalSizeX="0.5")), "utf-8")
    only = ome('<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:0"/>', uuid="urn:uuid:1")
    pixels = drawn(32, 32)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", description=only, metadata=None)
    with open_image([tmp_path / "a.ome.tif"]) as image:
        assert (pixels_of(image) == pixels).all()
        assert image.mpp == 0.5


def test_a_channel_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    ids = [f"urn:uuid:{number}" for number in range(3)]
    data = "".join(
        in_file(f"{number}.ome.tif", name).replace("IFD", f'FirstC="{number}" IFD') for number, name in enumerate(ids)
    )
    text = ome(ome_image(0, 32, data).replace(' SamplesPerPixel="3"', ""), uuid=ids[0])
    path = tmp_path / "0.ome.tif"
    tifffile.imwrite(path, drawn(32, 32, channels=1)[:, :, 0], description=text, metadata=None)
    with pytest.raises(ReadError, match=r"a channel is missing; put all files of this OME-TIFF side by side"):
        open_image([path])


def test_a_zip_is_read_like_a_folder(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    rgb = drawn(50, 40)
    tifffile.imwrite(
        buffer, np.moveaxis(rgb, 2, 0).copy(), ome=True, photometric="minisblack", metadata={"axes": "CYX"}
    )
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.ome.tif", buffer.getvalue())
    data = zipfile.ZipFile(tmp_path / "a.zip").read("a.ome.tif")
    with open_image([ArchiveMember(data, tmp_path / "a.zip" / "a.ome.tif")]) as image:
        assert (pixels_of(image) == rgb).all()


@pytest.mark.parametrize(
    "channel",
    [{"Name": ["B", "Green", "red"]}, {"Color": [0x0000FFFF, 0x00FF00FF, 0xFF0000FF - (1 << 32)]}],
    ids=["names", "colours"],
)
def test_channels_in_pages_of_their_own_are_put_in_the_order_that_ome_xml_states(
    channel: dict[str, list[Any]], tmp_path: Path
) -> None:
    pixels = drawn(60, 50)
    tifffile.imwrite(
        tmp_path / "x.ome.tif",
        pixels[:, :, ::-1].transpose(2, 0, 1),
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": channel},
    )
    with open_image([tmp_path / "x.ome.tif"]) as image:
        assert (pixels_of(image) == pixels).all()


def test_three_channels_of_fluorescence_are_no_colours(tmp_path: Path) -> None:
    planes = drawn(60, 50).transpose(2, 0, 1)
    shown = [0x0000FFFF, 0x00FF00FF, 0xFF0000FF - (1 << 32)]  # on the screen
    of_stains = ["DAPI", "FITC", "Cy5"]
    for channel in (
        {"Name": of_stains},
        {"Name": of_stains, "Color": shown},
        {"Name": ["Channel 0", "Channel:0:1", ""]},
    ):
        names = channel["Name"]
        tifffile.imwrite(
            tmp_path / "x.ome.tif", planes, photometric="minisblack", metadata={"axes": "CYX", "Channel": channel}
        )
        if "DAPI" in names:
            with pytest.raises(ReadError, match=r"the three channels are not colours; .*; found DAPI, FITC, Cy5"):
                open_image([tmp_path / "x.ome.tif"])
        else:
            with open_image([tmp_path / "x.ome.tif"]) as image:
                assert (pixels_of(image) == drawn(60, 50)).all()

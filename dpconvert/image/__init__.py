"""Read the pixels of slides and images. Only this package imports openslide.

Coordinates are level-0 pixels, x to the right, y down. Transparent pixels get the background colour of the file.

    opening.py     the choice of the reader of a file
    base.py        the interface of all images, and the resampling of pixels
    flat.py        images that are held in memory, and mosaics of them
    pyramid.py     slides that OpenSlide reads, and TIFFs that it refuses
    tiff/          TIFFs that OpenSlide refuses or reads only in part: layout, tags, colours, stored tiles
    ome/           the images and channels of OME-XML and OME-Zarr
    czi.py         slides that the library of Zeiss reads
    vsi/           slides of Olympus: the head, and the files of tiles
    dicom_jpeg.py  the colours of the JPEG frames of DICOM slides
    pnm.py         Netpbm formats, with their original samples
    decode.py      the decoder of PNG and JPEG, for sources and shards
    turned.py      images that are stored rotated or mirrored
    rgb.py         the rule that converts samples of any kind to 8-bit RGB
    depth.py       whether samples need a range of values, from the header of a file
    header.py      the size of an image, from the header of its file
    spacing.py     micrometres per pixel, in all notations of files
    overview.py    overviews of any size
    tissue_mask.py the detection of tissue
    coverage.py    exact shares of rectangles in a raster mask
    spots.py       frames by which the samples of a large image are checked
    unread.py      slide formats that are not read, or need an optional library
    guards/        limits for damaged and hostile files
"""

from dpconvert.image.base import BLOCK, CELL, Image, Pixels, over, resample
from dpconvert.image.flat import Flat, Mosaic, flat
from dpconvert.image.opening import SLIDE_SUFFIXES, is_slide, open_image
from dpconvert.image.overview import resolution, scales, thumbnail
from dpconvert.image.pyramid import Pages, Slide, openslide_version
from dpconvert.image.spacing import Spacing
from dpconvert.image.tissue_mask import TissueMask, otsu, tissue, tissue_part, tissue_parts

__all__ = [
    "BLOCK",
    "CELL",
    "SLIDE_SUFFIXES",
    "Flat",
    "Image",
    "Mosaic",
    "Pages",
    "Pixels",
    "Slide",
    "Spacing",
    "TissueMask",
    "flat",
    "is_slide",
    "open_image",
    "openslide_version",
    "otsu",
    "over",
    "resample",
    "resolution",
    "scales",
    "thumbnail",
    "tissue",
    "tissue_part",
    "tissue_parts",
]

"""Read the pixels of slides and images. Only this package imports openslide.

Coordinates are level-0 pixels, x to the right, y down. Transparent pixels get the background colour of the file.

    base.py     the interface of all images, and the resampling of pixels
    rgb.py      the rule that converts samples of any kind to 8-bit RGB
    decode.py   the decoder of PNG and JPEG, for sources and shards
    pnm.py      Netpbm formats, with their original samples
    tiff_rgb.py the description of samples in the tags of a TIFF
    turned.py   images that are stored rotated or mirrored
    flat.py     images that are held in memory, and mosaics of them
    pyramid.py  slides that OpenSlide reads, and TIFFs that it refuses
    dicom_jpeg.py  the colours of the JPEG frames of DICOM slides
    jpeg_tiles.py  the stored JPEG tiles of a slide: decoded once each, or passed on unchanged
    opening.py  the choice of the reader of a file
    overview.py overviews of any size
    tissue_mask.py  the detection of tissue
    tiff.py     TIFFs that OpenSlide refuses or reads only in part, read piece by piece
    tiff_layout.py  the content of a TIFF: its image, coarser levels, and other pages
    tiff_channels.py  the channels of ImageJ's and PerkinElmer's TIFFs
    unread.py   slide formats that are not read, or need an optional library
    czi.py, ome_zarr.py  slides that optional libraries read
    spacing.py  micrometres per pixel, in all notations of files
    header.py   the size of an image, from the header of its file
    spots.py    frames by which the samples of a large image are checked
    depth.py    whether samples need a range of values, from the header of a file
    coverage.py exact shares of rectangles in a raster mask
    guards/     limits for damaged and hostile files
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

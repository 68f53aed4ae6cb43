"""Files in, pixels of a slide or image out: the only importer of openslide.

Coordinates are level-0 pixels, x to the right, y down. What a file leaves transparent becomes its background colour.

    base.py     what every image can do, and how pixels are resampled
    rgb.py      the one rule by which samples of any kind become 8-bit RGB
    decode.py   the one decoder of PNG and JPEG, for sources and shards
    pnm.py      Netpbm's formats, by their own samples
    tiff_rgb.py what a TIFF's tags say of its samples
    turned.py   images that their files store turned
    flat.py     images held in memory as a whole, and mosaics of them
    pyramid.py  slides that OpenSlide reads; TIFFs that it refuses
    jpeg_tiles.py  a slide's own JPEG tiles: decoded once each, or passed on as they are
    opening.py  which of these a file is
    overview.py overviews of any size
    tissue_mask.py  where tissue is
    tiff.py     TIFFs that OpenSlide refuses or sees in part, piece by piece
    tiff_layout.py  what a TIFF holds: its image, coarser levels, and what else
    unread.py   formats of slides that nothing here reads
    spacing.py  micrometres per pixel, in every way that files state them
    header.py   the size of an image, from the head of its file
    coverage.py exact shares of rectangles in a raster mask
    guards/     limits for damaged and hostile files
"""

from dpconvert.image.base import BLOCK, CELL, Image, Pixels, over, resample
from dpconvert.image.flat import Flat, Mosaic, flat
from dpconvert.image.opening import SLIDE_SUFFIXES, open_image
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

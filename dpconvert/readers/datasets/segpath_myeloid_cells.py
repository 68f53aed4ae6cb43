"""SegPath, myeloid cells: the layout of segpath-epithelium."""

from __future__ import annotations

from dpconvert.readers.datasets.segpath_epithelium import fake, images, read_annotations

__all__ = ["fake", "images", "read_annotations"]

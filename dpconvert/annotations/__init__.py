"""Annotation files in, geometry in level-0 pixels out, y down: one module a format.

A parser takes bytes and raises nothing but ReadError, whatever the bytes.
"""

from dpconvert.annotations.geometry import Annotation, Annotations, Regions
from dpconvert.annotations.masks import LabelMask

__all__ = ["Annotation", "Annotations", "LabelMask", "Regions"]

"""What a source of your own imports: `from dpconvert.plugin import SourceImage, Source, ...`.

A source outside this repository is a manifest `my-source.toml` and a module `my_source.py` in a folder that the
variable DPCONVERT_PATH names. These names are public: they keep their meaning as `docs/explanation/versions.md`
promises.
"""

from dpconvert.annotations import Annotation, Annotations, LabelMask, Regions, masks, points
from dpconvert.annotations.formats import asap, coco, ndpa, qupath
from dpconvert.errors import ManifestError, ReadError, SourceError
from dpconvert.image import Image
from dpconvert.readers.fakes import FakeTree
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

__all__ = [
    "Annotation",
    "Annotations",
    "FakeTree",
    "Image",
    "LabelMask",
    "ManifestError",
    "MatchedFile",
    "ReadError",
    "Regions",
    "Source",
    "SourceError",
    "SourceImage",
    "asap",
    "coco",
    "masks",
    "ndpa",
    "points",
    "qupath",
]

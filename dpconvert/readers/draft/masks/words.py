"""Words in the names of files and folders that tell masks from images."""

from __future__ import annotations

import re

WORDS = r"masks?|labels?|gt|groundtruth|ground[-_ ]truth|seg|segmentations?|anno|annotations?|manual|mask[-_ ]images?"
FOLDER = re.compile(rf"(?i)(?:[^/]*[-_ ])?(?:{WORDS})(?:t[rs]|[-_ ][^/]*)?")  # labelsTr: of nnU-Net
PROGRAMS = r"cp[-_ ]masks?|labell?ed|binary|simple[-_ ]segmentation|object[-_ ]identities"  # Cellpose, QuPath, ilastik
ENDING = re.compile(rf"(?i)[._ -](?:{WORDS}|{PROGRAMS})$")
BRACKETS = re.compile(rf"(?i)[._ -]*[(\[](?:{WORDS})[)\]]$")
BEGINNING = re.compile(rf"(?i)^(?:{WORDS}|{PROGRAMS})(?:(?:[._ -]of)?[._ -]+|(?=\d))")  # as in "Mask of P1.png"
OWN = r"imgs?|images?|raw|rgb|sat|orig(?:inal)?|0000"  # words of images, in place of those of masks
CHANNEL = re.compile(r"_000[1-9]$")
OWN_ENDING = re.compile(rf"(?i)[._ -](?:{OWN})$")
OWN_BEGINNING = re.compile(rf"(?i)^(?:{OWN})(?:[._ -]+|(?=\d))")


def bare(stem: str) -> str:
    """The name of a mask without what says that it is one, at the end or at the beginning."""
    found = BRACKETS.sub("", ENDING.sub("", stem))
    return found if found != stem else BEGINNING.sub("", stem)


def own(stem: str) -> list[str]:
    """What an image may be called: its name, and the same without what says that it is an image."""
    return [stem, OWN_ENDING.sub("", stem), OWN_BEGINNING.sub("", stem)]

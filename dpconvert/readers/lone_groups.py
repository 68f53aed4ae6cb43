"""Images of files whose place of groups, such as a column of patients, holds none for them: each is its own group."""

from __future__ import annotations

from dpconvert.plural import counted
from dpconvert.source.record import SourceImage


def alone(image: SourceImage, group: str) -> bool:
    """Whether a place of groups, if [layout] names one, holds none for an image, which then is a group of its own."""
    return group != "" and image.group == image.files[0]


def notes_on_groups(count: int, what: str) -> list[str]:
    """Return a note on the rows, or samples, whose image is a group of its own because the place of groups is empty."""
    return [f"{counted(count, what)} without a group, each image a group of its own"] if count else []

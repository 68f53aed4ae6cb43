"""Installed packages that are older than this program needs, as another package's installation may leave them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import metadata

from dpconvert.errors import UserError

PROGRAM = "dpconvert"  # the distribution that holds both programs
OF_DEVELOPERS = ("dev", "docs", "demo")  # extras whose packages no command uses


@cache
def check() -> None:
    """Refuse to run with an installed package that is older than this program states, and was tested with.

    Older versions need not fail: some read other pixels or resolutions.

    Raises:
        UserError: there is one.
    """
    if found := list(outdated()):
        name, version, wanted = found[0]
        others = f", as are {len(found) - 1} more packages" if len(found) > 1 else ""
        raise UserError(
            f"the installed version is too old{others}",
            where=name,
            expected=wanted,
            found=version,
            remedy="pip install " + " ".join(f"'{name}{wanted}'" for name, _version, wanted in found),
        )


def outdated() -> Iterator[tuple[str, str, str]]:
    """Each installed package that does not satisfy what this program requires: its name, version, and the versions."""
    from packaging.requirements import Requirement

    for line in _required():
        wanted = Requirement(line)
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:  # an extra that is not installed, or conda's name for it
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield wanted.name, version, str(wanted.specifier)


def _required() -> Iterator[str]:
    """The requirements of the program and of its extras, less those of its developers. None if it is not installed."""
    try:
        lines = metadata.requires(PROGRAM) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if extra is None or extra[1] not in OF_DEVELOPERS:
            yield requirement

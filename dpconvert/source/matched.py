"""Files as the patterns of a manifest find them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpconvert.errors import ManifestError


@dataclass(frozen=True, slots=True)
class MatchedFile:
    """A file whose name matched a pattern; item access gives the pattern's named groups ('' if unmatched).

    aliases: other names of a slide that consists of several files.
    """

    name: str
    parts: Mapping[str, str]
    aliases: frozenset[str] = frozenset()

    def __getitem__(self, part: str) -> str:
        if part not in self.parts:
            raise ManifestError(
                f"the pattern that this file matches has no group (?P<{part}>...)",
                where=self.name,
                remedy="name one in the manifest's [files]",
            )
        return self.parts[part]

    def get(self, part: str, default: str = "") -> str:
        """Return the named group, or `default` if the pattern has no such group or it did not match."""
        return self.parts.get(part) or default

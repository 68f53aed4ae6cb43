"""Pools: named lists of sources that are downloaded and converted together, one TOML file each in manifests/pools/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from dpconvert import names
from dpconvert.card import Model
from dpconvert.errors import ManifestError
from dpconvert.manifest import catalog
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.toml_text import read_toml
from dpconvert.validation_errors import first_fault

FOLDER = "pools"
Gigabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PoolSource(Model):
    """A source of a pool, and the disk space that it needs, in gigabytes (10^9 bytes)."""

    name: str
    """Name of a known source, or the path of a manifest, relative to the file of the pool."""
    download: Gigabytes = 0
    """Size of the download."""
    unpacked: Gigabytes = 0
    """Size of what is unpacked beside it."""
    shards: Gigabytes = 0
    """Size of its shards."""


class SourcePool(Model):
    """A named list of sources."""

    name: str
    """Name on the command line."""
    title: str = ""
    """Human-readable title."""
    text: str = ""
    """Further information for its users."""
    sources: Annotated[list[PoolSource], Field(min_length=1)]
    """Its sources, in the order in which they are downloaded."""
    path: Path = Path()
    """Path of the file that was read; not a key of the file."""

    @field_validator("sources")
    @classmethod
    def _once(cls, sources: list[PoolSource]) -> list[PoolSource]:
        listed = [source.name for source in sources]
        if twice := [name for name in listed if listed.count(name) > 1]:
            raise ValueError(f"{twice[0]!r} is listed twice")
        return sources

    def manifest(self, source: PoolSource) -> Manifest:
        """Return the manifest of one of its sources.

        Raises:
            UsageError: the source is not known.
            ManifestError: the file is not a valid manifest.
        """
        path = source.name.endswith(".toml")
        return catalog.find(str(self.path.parent / source.name) if path else source.name)


def known_pools() -> dict[str, Path]:
    """Return every known pool as name -> file, in name order: of the package, then of $DPCONVERT_PATH."""
    folders = [catalog.manifest_folder(), *catalog.plugin_folders()]
    return dict(sorted((p.stem, p) for folder in folders for p in sorted((folder / FOLDER).glob("*.toml"))))


def find_pool(name: str) -> SourcePool:
    """Find a pool by its name, or by the path of a TOML file.

    Raises:
        UsageError: the pool is not known; the message gives the nearest names.
        ManifestError: the file is not a valid list.
    """
    if name.endswith(".toml"):
        return _load(Path(name))
    pools = known_pools()
    plain = {names.plain(pool): pool for pool in pools}
    return _load(pools[plain.get(names.plain(name)) or names.closest(name, pools, "pool")])


def _load(path: Path) -> SourcePool:
    try:
        return SourcePool.model_validate({"name": path.stem, **read_toml(path), "path": path.absolute()})
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", where=path) from None
    except ValidationError as error:
        fault = first_fault(error, SourcePool)
        raise ManifestError(str(fault), where=path, found=fault.found) from None
    except ValueError as error:
        raise ManifestError(f"not TOML: {error}", where=path) from None

"""Tables of networks by name, from a path, from a folder that timm or transformers wrote, or from options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dpconvert.manifest.catalog import manifest_folder
from dpconvert.manifest.toml_text import read_toml
from dpconvert.names import plain
from dpconvert.validation_errors import first_fault
from mtrain.backbones import hub
from mtrain.backbones.card import BackboneCard, Naming
from mtrain.backbones.model_folder import CONFIG, card_of_folder
from mtrain.errors import UsageError

T = TypeVar("T", bound=BaseModel)
TIMM, TABLE = "timm:", ".toml"
HUB, LOCAL = ("timm:hf-hub:", "timm:hf_hub:"), "timm:local-dir:"  # as timm calls them


def known() -> dict[str, Path]:
    """Name -> table of every network that comes with the program, in name order."""
    return dict(_tables_in(manifest_folder() / "backbones"))


@cache
def _tables_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob(f"*{TABLE}"))}


def listed() -> list[BackboneCard]:
    """All of them."""
    return [load(path) for path in known().values()]


def find(name: str) -> BackboneCard | None:
    """The network that is listed under this name, without regard to case, `-` and `_`; None if none is."""
    return next((load(path) for stem, path in known().items() if plain(stem) == plain(name)), None)


def load(path: Path) -> BackboneCard:
    """One table.

    Raises:
        UsageError: absent, not TOML, or not what a table must say; names the first fault.
    """
    return _validated(BackboneCard, {"name": path.stem} | _toml(path), path)


def described(backbone: str, options: Mapping[str, Any] | None = None) -> BackboneCard | None:
    """What is known of the network that `--backbone` names: of a listed one its table, of a path the table or the
    configuration there, of `timm:NAME` with options these; None for any other, which is known by its name only.

    Raises:
        UsageError: a path that is none of these; options of a network that takes none.
    """
    given = dict(options or {})
    found: BackboneCard | None
    if backbone.startswith(HUB):
        found = _of_hub(backbone)
    elif backbone.startswith(TIMM) and not _is_path(backbone):
        return _of_timm(backbone, given)
    else:
        found = _elsewhere(backbone) if _is_path(backbone) else find(backbone)
    if given and found is None:
        raise UsageError(f"--backbone-option is for networks of timm, not for {backbone}", remedy="give timm:NAME")
    if found is not None and found.unavailable:
        raise UsageError(f"{found.name} cannot be built: {found.unavailable}", where=found.url or None)
    if given and found is not None:
        raise UsageError(
            f"{found.name} has a table, which says how it is built",
            found=", ".join(given),
            remedy="write a table of your own with other options, or give timm:NAME",
        )
    return found


def at_path(backbone: str) -> BackboneCard | None:
    """The table or the configuration of a network that is given by a path; None for a name.

    Raises:
        UsageError: nothing there describes a network.
    """
    return _elsewhere(backbone) if _is_path(backbone) else None


def check_weights(card: BackboneCard, weights: str) -> None:
    """Check that the network has the requested weights: there are ImageNet weights only of networks in timm.

    Raises:
        UsageError: the weights must be downloaded by the user; the message says where.
    """
    if weights != "imagenet" or card.name.startswith(TIMM):
        return
    listed_there = f"`mtrain backbones show {card.name}` says where from" if card.name in known() else "or random"
    raise UsageError(
        f"{card.name} starts from its own weights", remedy=f"give their file or folder with --weights; {listed_there}"
    )


def size_of(backbone: str, options: Mapping[str, Any] | None = None) -> int | None:
    """The size of images that the table of a network says; None where there is none."""
    found = described(backbone, options)
    return None if found is None else found.size


def namings(card: BackboneCard) -> dict[str, Naming]:
    """Title -> how the tensors of its files may be called, besides timm's own names.

    Raises:
        UsageError: a table of names that does not exist.
    """
    return {name: card.naming.get(name) or _naming(name) for name in (*card.names, *card.naming)}


def folder_of(backbone: str) -> Path | None:
    """The folder that a network lies in, with its weights; None if it is not given by a folder or by a repository of
    the hub.

    Raises:
        RunError: the repository is neither in the hub's cache nor to be downloaded.
    """
    if backbone.startswith(HUB):
        return hub.snapshot(_repository(backbone))
    return _path(backbone) if _is_path(backbone) and _path(backbone).is_dir() else None


def slug(backbone: str) -> str:
    """A network's name as a part of a file's name."""
    if _is_path(backbone):
        return _path(backbone).name.removesuffix(TABLE)
    return backbone.replace(":", "-").replace("/", "-").replace("@", "-")


def absolute(backbone: str) -> str:
    """The same network for a process with another working directory."""
    return str(_path(backbone).absolute()) if _is_path(backbone) else backbone


def _path(backbone: str) -> Path:
    return Path(backbone.removeprefix(LOCAL))


def _repository(backbone: str) -> str:
    return backbone.removeprefix(TIMM).partition(":")[2]


def _is_path(backbone: str) -> bool:
    """A listed network comes before a folder of its name."""
    if backbone.startswith(LOCAL):
        return True
    if backbone.startswith(TIMM) or plain(backbone) in map(plain, known()):
        return False
    return backbone.endswith(TABLE) or "/" in backbone or (Path(backbone) / CONFIG).is_file()


def _of_hub(backbone: str) -> BackboneCard:
    repository = _repository(backbone)
    name = repository.partition("@")[0].rpartition("/")[2]
    return card_of_folder(hub.snapshot(repository)).model_copy(update={"name": name})


def _of_timm(backbone: str, options: dict[str, Any]) -> BackboneCard | None:
    if not options:
        return None
    return BackboneCard(name=backbone, title=backbone, timm=backbone.removeprefix(TIMM), options=options)


def _elsewhere(backbone: str) -> BackboneCard:
    path = _path(backbone)
    if path.is_dir():
        return card_of_folder(path)
    if not path.is_file():
        raise UsageError("no such table of a network", where=path, remedy="give a TOML file, or a name of a network")
    return load(path)


@cache
def _naming(name: str) -> Naming:
    folder = manifest_folder() / "backbones" / "names"
    path = folder / f"{name}{TABLE}"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in folder.glob(f"*{TABLE}")))
        raise UsageError(f"no table of names called {name!r}", remedy=f"choose {have}; or write one as [naming.{name}]")
    return _validated(Naming, _toml(path), path)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=path) from None
    except ValueError as error:
        raise UsageError(f"not TOML: {error}", where=path) from None


def _validated(model: type[T], data: dict[str, Any], path: Path) -> T:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        fault = first_fault(error, model)
        raise UsageError(str(fault), where=path, found=fault.found) from None

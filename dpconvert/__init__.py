"""Labelled histology and cytology datasets in, WebDataset shards with task and label metadata out.

    import dpconvert

    card = dpconvert.convert("umcm-colorectal", "sources/umcm-colorectal", "shards")
    print(card.classes, card.samples())

`dpconvert.plugin` is what a source of your own imports. All else is private.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` would take most of the time in which Ctrl-C is not handled yet

__version__ = "0.2.0"

if TYPE_CHECKING:
    from typing import Any

    from dpconvert.api import convert, load_task
    from dpconvert.card import TaskCard
    from dpconvert.errors import UserError
    from dpconvert.plan.options import Options

__all__ = ["Options", "TaskCard", "UserError", "__version__", "convert", "load_task"]

_PLACES = {
    "Options": "dpconvert.plan.options",
    "TaskCard": "dpconvert.card",
    "UserError": "dpconvert.errors",
    "convert": "dpconvert.api",
    "load_task": "dpconvert.api",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: the command line must answer at once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """The public names, loaded or not, as a notebook completes them."""
    return [*__all__, "__doc__", "__file__", "__name__", "__path__"]

"""What the command that runs has used, so that options which were given for nothing can be reported at its end.

The code that depends on such an option marks its use, in the main process. The names are those of the parameters.
"""

from __future__ import annotations

_used: set[str] = set()


def mark(*names: str) -> None:
    """Remember that these were used."""
    _used.update(names)


def begin() -> None:
    """Forget what was used before."""
    _used.clear()


def is_used(name: str) -> bool:
    """Whether this was used since `begin`."""
    return name in _used

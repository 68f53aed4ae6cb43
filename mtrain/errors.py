"""What a user can get wrong with mtrain. The tree and the one-line form are those of dpconvert.errors.

UserError
├── UsageError      a name, option or value that does not exist
├── ShardError      a shard, index or task.json that does not match what was written
└── RunError        a run folder, checkpoint or weights file that cannot be used
    ├── DivergedError   a training whose numbers are not finite any more
    └── SaidElsewhereError   another process of the same training has reported why all of them stop
"""

from __future__ import annotations

from dpconvert.errors import ShardError, UsageError, UserError

__all__ = ["DivergedError", "RunError", "SaidElsewhereError", "ShardError", "UsageError", "UserError"]


class RunError(UserError):
    """A run folder, checkpoint or weights file that cannot be used."""


class DivergedError(RunError):
    """A training whose numbers are not finite any more: the same settings end here every time."""


class SaidElsewhereError(RunError):
    """Another process of the same training has reported why all of them stop, so that this one reports nothing."""

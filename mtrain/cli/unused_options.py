"""Options that were given for nothing: a command says so while it works, or at its end."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mtrain import used
from mtrain.backbones.downloads import UNANNOUNCED
from mtrain.cli.options import reporter

if TYPE_CHECKING:
    from dpconvert.runtime.progress import Reporter


NOTED = "mtrain.noted"  # key of the options of a command that were reported as unused

# options that the modules of mtrain mark as used (mtrain.used) -> why they were not
AT_THE_END = {
    "cache": "no shards were read from remote storage",
    "cache_size": "no shards were read from remote storage",
    "check_images": "no images were read",
    "workers": "no images were read",
    "resident": "no images were read",
    "device": "nothing was computed on it",
    "trackers": "nothing was trained",
}


def is_given(name: str) -> bool:
    """Whether a parameter of the command that runs was given on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def note_unused(report: Reporter, unused: Mapping[str, str]) -> None:
    """Say which options were given on the command line for nothing. unused: parameter -> why it has no effect."""
    context = click.get_current_context()
    said = context.meta.setdefault(NOTED, set())
    for parameter in context.command.params:
        if parameter.name in unused and parameter.name not in said and is_given(parameter.name):
            said.add(parameter.name)
            report.note(f"{_flag(parameter)} is not used: {unused[parameter.name]}")


def _flag(parameter: click.Parameter) -> str:
    """An option as it is given; one that is on or off in both forms."""
    return "/".join(max(flags, key=len) for flags in (parameter.opts, parameter.secondary_opts) if flags)


def noting_unused(command: click.Command) -> click.Command:
    """The command, which says at its end which of the options in `AT_THE_END` nothing has used. One that fails does
    not: what it did not come to would have used them.
    """
    work = command.callback
    assert work is not None

    @functools.wraps(work)
    def run(*args: Any, **options: Any) -> Any:
        used.begin()
        quiet = UNANNOUNCED.set(bool(options.get("quiet")))
        try:
            found = work(*args, **options)
        except SystemExit as ended:
            if not ended.code:
                _note_at_the_end()
            raise
        finally:
            UNANNOUNCED.reset(quiet)
        _note_at_the_end()
        return found

    command.callback = run
    return command


def _note_at_the_end() -> None:
    given = click.get_current_context().params
    idle = {name: why for name, why in AT_THE_END.items() if is_given(name) and not used.is_used(name)}
    if idle and os.environ.get("RANK", "0") == "0":
        note_unused(reporter(bool(given.get("quiet") or given.get("as_json"))), idle)

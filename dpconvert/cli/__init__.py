"""The command `dpconvert`, one module for each group of commands. Only this package exits the program.

Commands import their dependencies when they run, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Any

import click

from dpconvert import __version__
from dpconvert.cli import convert, doctor, fetch, init, pool, preview, sources, tasks
from dpconvert.cli.convert import source_command
from dpconvert.errors import UsageError
from dpconvert.runtime.program import Program
from dpconvert.runtime.terminal import ended


class Commands(Program):
    """The commands, and every source as a command of its own: `dpconvert camelyon16 --out shards/`."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        known = super().get_command(context, name)
        return known if known is not None else source_command(name)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        name = args[0]
        if super().get_command(context, name) is None and not name.startswith("-"):
            _check_name(name, list(self.commands))
        return super().resolve_command(context, args)


def main() -> None:
    """Entry point."""
    with ended("dpconvert", "stopped; run the same command again to resume: finished shards are kept"):
        group.main(standalone_mode=False)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="SOURCE | COMMAND [OPTIONS]",
)
@click.version_option(__version__, prog_name="dpconvert")
def group() -> None:
    """Turn a histology or cytology dataset into WebDataset shards.

    SOURCE is a known dataset (see `dpconvert list`) or your own manifest (my.toml).

    \b
    dpconvert list                                   list the known sources
    dpconvert show warwick-crc                       describe one, and where to get it
    dpconvert warwick-crc --source DIR --out shards/ convert it
    dpconvert init DIR                               draft a manifest for your own files
    dpconvert verify shards/                         check every byte of the result
    """


for command in (
    convert.convert_all,
    init.init,
    sources.list_sources,
    sources.show,
    sources.check,
    sources.fake,
    fetch.fetch,
    pool.show_pool,
    tasks.verify,
    tasks.audit,
    tasks.unpack,
    preview.preview,
    doctor.doctor,
):
    group.add_command(command)


def _check_name(name: str, verbs: list[str]) -> None:
    """Suggest similar commands and sources for a name that is neither."""
    from dpconvert.manifest.catalog import LISTING, check_not_near, find, known
    from dpconvert.names import closest

    if name.endswith(".toml"):
        return
    try:
        find(name)
    except UsageError:
        check_not_near(name, "command or source")
        listing = f"{LISTING}, `dpconvert --help` the commands"
        closest(name, [*verbs, *known()], "command or source", listing)

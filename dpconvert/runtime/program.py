"""What the command lines of both programs have in common: the list of commands, and options that are given again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from dpconvert.runtime import requirements
from dpconvert.runtime.terminal import say

SENTENCE = 500  # characters of a first sentence that are shown
EXTRA = "Got unexpected extra argument"  # the beginning of click's message
NAMING = ("--run", "--sweep", "--source", "--shards")  # options that may be meant by an argument that is too many


class Program(click.Group):
    """A group of commands that says which of a command's options were given again, since only the last value counts.

    With `--quiet` or `--json` it says nothing.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the first sentence of their help, which click would cut to one line."""
        listed = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, of.get_short_help_str(SENTENCE)) for name, of in listed if of is not None and not of.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:  # as for the completion of a shell
            if not {*ctx.help_option_names} & {*rest}:
                requirements.check()
            for flag, times in _given_again(ctx, command, rest).items():
                say(f"{flag} is given {times} times: only the last one counts")
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report an unknown argument with the options that may be meant."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is not None and error.message.startswith(EXTRA):
                known = {flag for option in error.ctx.command.params for flag in option.opts}
                meant = [flag for flag in NAMING if flag in known]
                if meant:
                    raise click.UsageError(f"{error.message}; give it after {' or '.join(meant)}", error.ctx) from None
            raise


def _given_again(parent: click.Context, command: click.Command, words: list[str]) -> dict[str, int]:
    """Count how often each option that takes one value is given; only those that are given more than once."""
    context = click.Context(command, info_name=command.name, parent=parent, resilient_parsing=True)
    try:
        options, _, order = command.make_parser(context).parse_args(list(words))
    except click.UsageError:  # the command itself will say so
        return {}
    if options.get("quiet") or options.get("as_json"):
        return {}
    often: Counter[Any] = Counter(order)
    return {
        max(option.opts, key=len): times
        for option, times in often.items()
        if times > 1 and isinstance(option, click.Option) and not (option.multiple or option.is_flag or option.count)
    }

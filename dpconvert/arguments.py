"""Errors for those who call a function: they name its arguments, where the command line has options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral

from pydantic import BaseModel

from dpconvert.errors import UsageError, UserError

OPTION = re.compile(r"(`[^`]*`)|(?<![\w-])--([a-z][a-z-]*)")  # commands, between backticks, keep their options


@contextmanager
def named(arguments: Mapping[str, str]) -> Iterator[None]:
    """Name arguments in the errors of the block. arguments: what to write for each option, without its dashes.

    An option that `arguments` lacks keeps its name.
    """
    try:
        yield
    except UserError as error:
        error.what = in_arguments(error.what, arguments)
        error.args = (error.what,)
        for part in ("expected", "found", "remedy"):
            text = getattr(error, part)
            setattr(error, part, in_arguments(text, arguments) if isinstance(text, str) else text)
        raise


def in_arguments(text: str, arguments: Mapping[str, str]) -> str:
    """Return the text with `name` in place of each --option of `arguments`."""
    return OPTION.sub(lambda found: found[1] or _argument(found[0], found[2], arguments), text)


def _argument(whole: str, option: str, arguments: Mapping[str, str]) -> str:
    return f"`{arguments[option]}`" if option in arguments else whole


def of_model(model: type[BaseModel]) -> dict[str, str]:
    """Return what to write for the options that are fields of a model: `limit`; `dense=True` and `False` for a flag."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        option = name.replace("_", "-")
        if field.annotation is bool:
            found |= {option: f"{name}=True", f"no-{option}": f"{name}=False"}
        else:
            found[option] = name
    return found


def check_whole(name: str, value: object, least: int) -> None:
    """Raises:
    UsageError: the argument is not a whole number that is large enough.
    """
    if not isinstance(value, Integral) or int(value) < least:
        raise UsageError(f"{name}: must be a whole number, at least {least}", found=repr(value))


def check_options(value: object, kind: type) -> None:
    """Raises:
    UsageError: the argument `options` is not of its class.
    """
    if not isinstance(value, kind):
        package = kind.__module__.partition(".")[0]
        raise UsageError(f"options: must be {package}.{kind.__name__}", found=repr(value))

"""The settings of a training as options of a command; names, types, help and defaults are those of `FitConfig`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from dpconvert.runtime.finite import NUMBER, WHOLE
from dpconvert.runtime.terminal import Detailed
from mtrain.cli.options import key_values

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class TrainingCommand(Detailed):
    """A command that has settings of a training among its options.

    They are made from `FitConfig` when the command runs or shows its help: the list of all commands does not wait for
    pydantic. settings: names of fields, all of them if None. shown: those that `--help` lists, the others are listed by
    `--help-all`. defaults: texts in place of the defaults of `FitConfig`.
    """

    def __init__(
        self,
        *args: Any,
        settings: Collection[str] | None = None,
        shown: Collection[str],
        defaults: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._settings, self._shown, self._defaults = settings, shown, defaults or {}
        self._complete = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters, the settings among them."""
        if not self._complete:
            self._complete = True
            self.params[self._place() : self._place()] = self._made()
        return super().get_params(ctx)

    def _place(self) -> int:
        """After the folders and the name of the run."""
        return next(
            i for i, parameter in enumerate(self.params) if parameter.name in ("config_file", "as_json", "out", "seeds")
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options; with `--help-all`, the settings in sections."""
        from mtrain.setting_roles import SECTIONS

        parameters = self.get_params(ctx)
        if any(option.hidden for option in parameters if isinstance(option, click.Option)):
            super().format_options(ctx, formatter)
            return
        section = {name: title for title, names in SECTIONS.items() for name in names}
        listed: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in SECTIONS}}
        for parameter in parameters:
            if record := parameter.get_help_record(ctx):
                listed[section.get(parameter.name or "", "Options")].append(record)
        for title, records in listed.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _made(self) -> list[click.Option]:
        from mtrain.config import FitConfig

        fields = FitConfig.model_fields
        names = fields if self._settings is None else self._settings
        return [self._option(name, fields[name]) for name in names]

    def _option(self, name: str, field: FieldInfo) -> click.Option:
        flag, kind = _FLAGS.get(name, "--" + name.replace("_", "-")), _kind(field.annotation)
        default = self._defaults.get(name) or default_text(field)
        how: dict[str, Any] = {"type": kind, "metavar": METAVARS.get(kind)} | _TAKES.get(name, {})
        if kind is bool:
            flag, how = f"{flag}/--no-{flag[2:]}", {"default": None}
        if default:
            default = f"  [default: {default}]"
        text = str(field.description)
        if how.get("multiple"):
            text = text.removesuffix(".") + "; may be repeated."
        return click.Option([flag, name], help=f"{text}{default}", hidden=name not in self._shown, **how)


def default_text(field: FieldInfo) -> str:
    """The default of a setting as people write it; '' if it has none that can be shown."""
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["x-default"])
    value = field.default
    if value is None or isinstance(value, (bool, tuple)) or field.default_factory:
        return ""
    return _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """1e-4 rather than 0.0001."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if 0 < value < 0.01 else f"{value:g}"


def _kind(annotation: Any) -> Any:
    """What click takes for a field: str, int, float, bool or a choice."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not NoneType))
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    return annotation if annotation in (int, float, bool) else str


def _weights_by_task(
    _context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, float] | None:
    """NAME=NUMBER, repeated."""
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, like Lung=2", param=option)
    return found or None


def _names(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names separated by commas, or given one by one."""
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


METAVARS = {int: WHOLE, float: NUMBER}
_FLAGS = {"task_weights": "--task-weight", "backbone_options": "--backbone-option"}
_TAKES: dict[str, dict[str, Any]] = {
    "shards": {"metavar": "DIR|URL"},
    "leave_out": {"multiple": True, "metavar": "TASK", "callback": _names},
    "tasks": {"multiple": True, "metavar": "A,B,C", "callback": _names},
    "drop": {"metavar": "FILE"},
    "joint": {"multiple": True, "metavar": "TASK", "callback": _names},
    "train_on": {"type": click.Choice(["train+val", "train"]), "metavar": "SETS"},  # the test sets: `mtrain release`
    "task_weights": {"multiple": True, "metavar": "NAME=W", "callback": _weights_by_task},
    "backbone_options": {"multiple": True, "metavar": "KEY=VALUE", "callback": key_values},
    "backbone": {"metavar": "NETWORK"},
    "weights": {"metavar": "NAME|FILE"},
    "weights_key": {"metavar": "NAME"},
    "size": {"metavar": "PX"},
    "device": {"metavar": "DEVICE"},
    "resident": {"metavar": "GIB"},
    "tune": {"metavar": "WHAT"},
    "layer_decay": {"metavar": "D"},
    "ema": {"metavar": "DECAY"},
    "stain_jitter": {"metavar": "S"},
    "colour_jitter": {"metavar": "S"},
}

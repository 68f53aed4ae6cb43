"""Writes pages and a JSON Schema in docs/reference from the models of manifests, settings and sweeps: `make docs`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from dpconvert.manifest.model import Manifest
from dpconvert.readers import layouts
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.sweep.schema import json_schema
from mtrain.sweep.spec import Sweep

FOLDER = Path(__file__).parent / "reference"
NAMES = ("manifests", "settings", "backbones", "sweeps")
MANIFESTS, SETTINGS, BACKBONES, SWEEPS = (FOLDER / f"{name}.md" for name in NAMES)
SCHEMA = FOLDER / "sweep.schema.json"
HEADS = {
    MANIFESTS: """# Manifests

A manifest is a TOML file that describes one source; [A dataset of your own](../how-to/own-dataset.md) shows a complete
one. This page lists every name that a manifest may contain, with one section per table. An unknown name is an error
that suggests the closest known one. `make docs` generates this page from `dpconvert/manifest/` and
`dpconvert/readers/layouts/`.
""",
    BACKBONES: """# Network tables

A table is a TOML file that describes a network; [Start from a foundation model](../how-to/foundation-models.md) shows
one. Give its path to `--backbone`. The tables of the program are in `manifests/backbones`. This page lists every name
that a table may contain. `make docs` generates this page from `mtrain/backbones/card.py`.
""",
    SWEEPS: """# Sweep files

A sweep file is a TOML file that says which settings `mtrain sweep` combines and which tasks each training leaves out;
those of the program are in `manifests/sweeps`. This page lists every name that it may contain. An unknown name is an
error that suggests the closest known one. `make docs` generates this page from `mtrain/sweep/spec.py`.

[sweep.schema.json](sweep.schema.json) is the same as a JSON Schema. With it, an editor that knows TOML (for example, VS
Code with Even Better TOML, or Neovim with taplo) completes names and marks mistakes as you type. Save it beside your
sweep file, and start that file with

```toml
#:schema ./sweep.schema.json
```

This is a complete sweep file, which leaves out each of two tasks and trains 2 x 2 combinations with two seeds:

```toml
#:schema ./sweep.schema.json
leave_out = ["Lung", ["Breast1", "Breast2"]]  # two sets; the tasks of the second leave together
seeds = [0, 1]

[grid]
backbone = ["resnet50"]
lr = [1e-4, 1e-3]
tau = [1.0, 5.0]
warmup = [true]

[fit]
iterations = 5000
batch = 64
```
""",
    SETTINGS: """# Training settings

This page lists the settings of a training run; the defaults follow [the paper's
protocol](../explanation/protocol.md). Set them as options of `mtrain fit` (with dashes instead of underscores;
`task_weights` is `--task-weight NAME=W`), in the `[fit]` table of a sweep file, or as arguments of `mtrain.fit`. A run
records them in its `config.json`. `make docs` generates this page from `mtrain/config.py`.

`mtrain fit --config FILE` reads settings from a TOML file, or from the `config.json` of a run; options on the command
line override it. `mtrain fit --print-config` prints all settings in that form and does not train.
""",
}


def page(path: Path) -> str:
    """The whole text of one of the pages."""
    models: dict[Path, tuple[str, Any]] = {
        MANIFESTS: ("Manifest", Manifest),
        BACKBONES: ("Table", BackboneCard),
        SETTINGS: ("Settings", FitConfig),
        SWEEPS: ("Sweep", Sweep),
    }
    parts = [*_sections(*models[path]), *(_layouts() if path == MANIFESTS else ())]
    return "\n".join([HEADS[path], *filter(None, parts)])


def schema() -> str:
    """The text of the JSON Schema of sweep files."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _sections(title: str, model: Any) -> Iterator[str]:
    """A model, and the models that it holds."""
    schema: dict[str, Any] = model.model_json_schema()
    yield _section(title, schema, schema.get("required", []))
    for name, part in sorted(schema.get("$defs", {}).items()):
        yield _section(name, part, part.get("required", []))


def _layouts() -> Iterator[str]:
    """The table [layout] of each shape."""
    for module in iter_modules(layouts.__path__):
        reader = import_module(f"{layouts.__name__}.{module.name}")
        schema = reader.Layout.model_json_schema() | {"description": ""}
        about = re.sub(r"\[files\.\w+\]", r"`\g<0>`", str(reader.__doc__).partition(": ")[2]).strip()
        title = f"[layout] of the shape {module.name}"
        keys = _section(title, schema, schema.get("required", [])).removeprefix(f"## {title}\n")
        yield f"## {title}\n\n{about[0].upper()}{about[1:]}\n{keys}"


def _section(title: str, schema: dict[str, Any], required: list[str]) -> str:
    if "properties" not in schema:
        return (
            f"## {title}\n\n{_text(schema)}: {_kind(schema)}\n" if _text(schema) else f"## {title}\n\n{_kind(schema)}\n"
        )
    rows = ["| name | value | default | description |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        if field.get("format") == "path" or name == "fake":  # where a manifest lies; what our tests draw
            continue
        default = "required" if name in required and "x-default" not in field else _default(field)
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {_text(field)} |")
    return "\n".join([f"## {title}\n", *([_text(schema) + "\n"] if _text(schema) else []), *rows, ""])


def _text(schema: dict[str, Any]) -> str:
    return " ".join(re.sub(r"\s+", " ", schema.get("description", "")).split()).replace("|", "\\|")


def _default(field: dict[str, Any]) -> str:
    if "x-default" in field:
        return str(field["x-default"])
    value = field.get("default")
    return "" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A default as a manifest writes it, without what it leaves out."""
    if isinstance(value, dict):
        given = [f"{key} = {_toml(inner)}" for key, inner in value.items() if inner not in (None, "", [], {})]
        return "{" + ", ".join(given) + "}"
    return json.dumps(value)


def _kind(field: dict[str, Any]) -> str:
    """A JSON schema as text."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in field:
            return " or ".join(_kind(part) for part in field[several])
    if "const" in field:
        return f"`{_toml(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{_toml(value)}`" for value in field["enum"]).replace("|", "\\|")
    kind = field.get("type", "anything")
    if kind == "array" and "prefixItems" in field:
        return f"[{', '.join(_kind(part) for part in field['prefixItems'])}]"
    if kind == "array":
        return f"list of {_kind(field.get('items', {}))}"
    if kind == "object":
        values = field.get("additionalProperties", {})
        return f"table of {_kind(values)}" if isinstance(values, dict) and values else "table"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    range_ = [f"{sign} {field[limit]}" for limit, sign in limits.items() if limit in field]
    return {"null": "none"}.get(kind, kind) + (f" {', '.join(range_)}" if range_ else "")


if __name__ == "__main__":
    for path in HEADS:
        path.write_text(page(path))
    SCHEMA.write_text(schema())

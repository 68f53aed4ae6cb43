"""Writes docs/reference/manifests.md and settings.md from the schemas: `make docs`. A test compares them."""

from __future__ import annotations

import ast
import inspect
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from dpconvert.manifest import model as manifests
from dpconvert.manifest.model import Manifest
from mtrain.config import FitConfig

FROM_FILE = {"name": "the file's name", "path": ""}  # what reading a manifest sets

FOLDER = Path(__file__).parent / "reference"
MANIFESTS, SETTINGS = FOLDER / "manifests.md", FOLDER / "settings.md"
HEADS = {
    MANIFESTS: """# Manifests

A manifest is a TOML file that describes one source; [A dataset of your own](../how-to/own-dataset.md) shows a complete
one. This page lists every name that a manifest may contain, with one section per table. An unknown name is an error
that suggests the closest known one. `make docs` generates this page from `dpconvert/manifest/model.py`.
""",
    SETTINGS: """# Training settings

This page lists the settings of a training run; the defaults follow [the paper's
protocol](../explanation/protocol.md). Set them as options of `mtrain fit` (with dashes instead of underscores;
`task_weights` is `--task-weight NAME=W`), in the `[fit]` table of a sweep file, or as arguments of `mtrain.fit`. A run
records them in its `config.json`. `make docs` generates this page from `mtrain/config.py`.
""",
}


def page(path: Path) -> str:
    """The whole text of one of the two pages."""
    model = Manifest if path == MANIFESTS else FitConfig
    schema: dict[str, Any] = model.model_json_schema()
    title = "Manifest" if model is Manifest else "Settings"
    parts = [_section(title, schema, schema.get("required", []))]
    parts += [_section(name, part, part.get("required", [])) for name, part in sorted(schema.get("$defs", {}).items())]
    return "\n".join([HEADS[path], *filter(None, parts)])


def _attributes(name: str) -> dict[str, str]:
    """Field -> its docstring, of a class of a manifest and those that it extends; nothing of other classes."""
    texts: dict[str, str] = {}
    for base in reversed(getattr(manifests, name, object).__mro__):
        if base.__module__.startswith("dpconvert."):
            (tree,) = ast.parse(inspect.getsource(base)).body
            assert isinstance(tree, ast.ClassDef)
            for field, text in pairwise(tree.body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=of)), ast.Expr(value=ast.Constant(value=str(said))):
                        texts[of] = said
    return texts


def _section(title: str, schema: dict[str, Any], required: list[str]) -> str:
    if "properties" not in schema:
        return (
            f"## {title}\n\n{_text(schema)}: {_kind(schema)}\n" if _text(schema) else f"## {title}\n\n{_kind(schema)}\n"
        )
    rows = ["| name | value | default | description |", "|---|---|---|---|"]
    texts = _attributes(title)
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field)
        if title == "Manifest":
            default = FROM_FILE.get(name, default)
        if default or name not in FROM_FILE:
            text = _text({"description": texts[name]} if name in texts else field)
            rows.append(f"| `{name}` | {_kind(field)} | {default} | {text} |")
    return "\n".join([f"## {title}\n", *([_text(schema) + "\n"] if _text(schema) else []), *rows, ""])


def _text(schema: dict[str, Any]) -> str:
    return " ".join(re.sub(r"\s+", " ", schema.get("description", "")).split()).replace("|", "\\|")


def _default(field: dict[str, Any]) -> str:
    """As TOML has it."""
    if field.get("default", ...) is None:
        return "none"
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`" if "default" in field else ""


def _kind(field: dict[str, Any]) -> str:
    """A JSON schema as text."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in field:
            return " or ".join(_kind(part) for part in field[several])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "anything")
    if "prefixItems" in field:
        return f"[{', '.join(map(_kind, field['prefixItems']))}]"
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

"""The schemas in, docs/reference/manifests.md, backbones.md and settings.md out: `make docs`. A test holds the pages
against them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dpconvert.manifest.model import Manifest
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig

FOLDER = Path(__file__).parent / "reference"
MANIFESTS, SETTINGS, BACKBONES = (FOLDER / f"{name}.md" for name in ("manifests", "settings", "backbones"))
HEADS = {
    MANIFESTS: """# Manifests

Written by `make docs` from `dpconvert/manifest/model.py`. A manifest is one TOML file; a table of another section is
named by that section's title. Unknown names are refused, with the nearest known one.
""",
    BACKBONES: """# Tables of networks

Written by `make docs` from `mtrain/backbones/card.py`. A table is one TOML file, given to `--backbone` by its path;
those that come with the program lie in `manifests/backbones`. Unknown names are refused, with the nearest known one.
""",
    SETTINGS: """# Settings of a training

Written by `make docs` from `mtrain/config.py`. Each is an option of `mtrain fit`, with dashes for underscores, a name
in the `[fit]` table of a sweep's file, and a line of a run's `config.json`. The defaults are the paper's protocol.
""",
}


def page(path: Path) -> str:
    """The whole text of one of the pages."""
    model = {MANIFESTS: Manifest, BACKBONES: BackboneCard, SETTINGS: FitConfig}[path]
    schema: dict[str, Any] = model.model_json_schema()
    title = {MANIFESTS: "Manifest", BACKBONES: "Table", SETTINGS: "Settings"}[path]
    parts = [_section(title, schema, schema.get("required", []))]
    parts += [_section(name, part, part.get("required", [])) for name, part in sorted(schema.get("$defs", {}).items())]
    return "\n".join([HEADS[path], *filter(None, parts)])


def _section(title: str, schema: dict[str, Any], required: list[str]) -> str:
    if "properties" not in schema:
        return (
            f"## {title}\n\n{_text(schema)}: {_kind(schema)}\n" if _text(schema) else f"## {title}\n\n{_kind(schema)}\n"
        )
    rows = ["| name | value | default | |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "needed" if name in required else _default(field)
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {_text(field)} |")
    return "\n".join([f"## {title}\n", *([_text(schema) + "\n"] if _text(schema) else []), *rows, ""])


def _text(schema: dict[str, Any]) -> str:
    return " ".join(re.sub(r"\s+", " ", schema.get("description", "")).split()).replace("|", "\\|")


def _default(field: dict[str, Any]) -> str:
    return f"`{field['default']!r}`" if "default" in field else ""


def _kind(field: dict[str, Any]) -> str:
    """A JSON schema in words."""
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
    if kind == "array":
        return f"list of {_kind(field.get('items', {}))}"
    if kind == "object":
        values = field.get("additionalProperties", {})
        return f"table of {_kind(values)}" if isinstance(values, dict) and values else "table"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    range_ = [f"{sign} {field[limit]}" for limit, sign in limits.items() if limit in field]
    return {"null": "nothing"}.get(kind, kind) + (f" {', '.join(range_)}" if range_ else "")


if __name__ == "__main__":
    for path in HEADS:
        path.write_text(page(path))

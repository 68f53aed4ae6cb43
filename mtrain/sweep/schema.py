"""The JSON Schema of sweep files, for editors."""

from __future__ import annotations

from typing import Any

from mtrain.config import FitConfig
from mtrain.sweep.spec import FIXED, Sweep


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a sweep file, the settings of `[fit]` included."""
    schema, settings = Sweep.model_json_schema(), FitConfig.model_json_schema()
    allowed = {name: field for name, field in settings["properties"].items() if name not in FIXED}
    about = schema["properties"]["fit"] | {"properties": allowed, "additionalProperties": False}
    schema["properties"]["fit"] = about
    schema["$defs"] |= settings.get("$defs", {})
    schema["required"] = [name for name in schema["required"] if name != "name"]  # that of the file
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema

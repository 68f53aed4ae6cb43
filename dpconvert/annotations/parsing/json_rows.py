"""JSON lines as rows of a table: an object a line, as `metadata.jsonl` of Hugging Face and `to_json(lines=True)` write.

Its members are the columns: texts and numbers as they are, true and false as words, null as an empty cell, and a list
of such values with ';' between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dpconvert import names
from dpconvert.annotations.parsing.lines import MOST
from dpconvert.errors import ReadError

LINES = re.compile(r"(?i)\.(?:jsonl|ndjson)$")
BETWEEN = ";"


def is_lines(name: str) -> bool:
    """Whether a file is of JSON lines, by its name."""
    return bool(LINES.search(name))


def records(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line from 1, cells) of the head, which is in line 0, and of every row; an empty line has no cells.

    Raises:
        ReadError: not JSON lines in UTF-8, or a line that is not an object.
    """
    rows = list(_objects(data, name))
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    if len({names.bare(names.nfc(key)) for key in columns}) < len(columns):
        raise ReadError("two members of one name", where=name, found=", ".join(columns), remedy="rename one of them")
    yield 0, [names.bare(names.nfc(key)) for key in columns]
    for line, row in rows:
        yield line, [_text(row.get(key), f"{name}, line {line}") for key in columns] if row else []


def _objects(data: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError("JSON lines that are not in UTF-8", where=name, found=str(error)) from None
    for line, content in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if line > MOST:
            raise ReadError("too many rows", where=name, expected=f"at most {MOST}")
        try:
            found = json.loads(content, object_pairs_hook=_once) if content.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ReadError(f"line {line}: not readable as JSON: {error}", where=name) from None
        if not isinstance(found, dict):
            raise ReadError(f"line {line}: no JSON object", where=name, found=content.strip()[:40])
        yield line, found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a member that is stated twice")
    return dict(pairs)


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return names.bare(names.nfc(value))
    if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
        parts = [_text(one, where) for one in value]
        if any(BETWEEN in part for part in parts):
            raise ReadError(f"a list with a value that holds {BETWEEN!r}", where=where, found=json.dumps(value)[:40])
        return BETWEEN.join(parts)
    return json.dumps(value, ensure_ascii=False)

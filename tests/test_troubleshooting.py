"""The page of troubleshooting: each of its headings is a message that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT

PAGE = ROOT / "docs" / "how-to" / "troubleshooting.md"
HEADINGS = [text for _, text in re.findall(r"^### (`+)(.*)\1$", PAGE.read_text(), re.MULTILINE)]
SOURCES = sorted(path for package in ("dpconvert", "mtrain") for path in (ROOT / package).rglob("*.py"))


def texts(path: Path) -> Iterator[str]:
    """Every text of a module, with `...` in place of what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
            yield re.sub(r"(\.\.\.)+", "...", "".join(map(str, parts)))


@pytest.fixture(scope="module")
def known() -> set[str]:
    return {text for path in SOURCES for text in texts(path)}


def test_the_page_has_at_least_twenty_messages() -> None:
    assert len(HEADINGS) >= 20
    assert len(set(HEADINGS)) == len(HEADINGS)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_message_of_the_page_is_one_of_the_code(heading: str, known: set[str]) -> None:
    assert heading in known

"""The modules and files that documents, docstrings and comments name exist: prose does not follow them by itself."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, pages

DOTTED = re.compile(r"(?<![\w./@$-])(?:dpconvert|mtrain)(?:\.[A-Za-z_]\w*)+(?![\w/]|\.\w)")
PATH = re.compile(r"(?<![\w./-])(?:dpconvert|mtrain|tests|docs|benchmarks|manifests)/[\w./-]+\.(?:py|md|toml|css)\b")
PLACEHOLDERS = ("my-source", "my_source")
ENDINGS = ("err", "json", "log", "noted", "toml", "yml")  # of files, as in `mtrain.log`, and of a key of click
FILES = [*pages(), *(path for package in ("dpconvert", "mtrain") for path in sorted((ROOT / package).rglob("*.py")))]


def prose(path: Path) -> Iterator[str]:
    """The text of a page, or the comments and strings of a module."""
    text = path.read_text()
    if path.suffix != ".py":
        yield text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.string


def exists(dotted: str) -> bool:
    """Whether a name is a module, or is named in the module of its beginning."""
    path, parts = ROOT, dotted.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    module = (path / parts.pop(0)).with_suffix(".py") if parts and (path / f"{parts[0]}.py").is_file() else None
    defining = module or path / "__init__.py"
    return not parts or re.search(rf"\b{parts[0]}\b", defining.read_text()) is not None


@pytest.mark.parametrize(
    "name", ["dpconvert.image.rgb", "mtrain.fit", "mtrain.train.fit", "dpconvert.errors.UserError"]
)
def test_a_module_or_what_it_defines_exists(name: str) -> None:
    assert exists(name)


@pytest.mark.parametrize("name", ["mtrain.runs.run_folder.Nothing", "mtrain.nothing", "dpconvert.image.nothing.at_all"])
def test_a_name_that_no_module_has_is_missing(name: str) -> None:
    assert not exists(name)


def test_modules_and_files_named_in_prose_exist() -> None:
    wrong = []
    for file in FILES:
        for text in prose(file):
            names = [name for name in DOTTED.findall(text) if not name.endswith(ENDINGS)]
            paths = [path for path in PATH.findall(text) if not any(word in path for word in PLACEHOLDERS)]
            missing = [name for name in names if not exists(name)]
            missing += [path for path in paths if not (ROOT / path).exists()]
            wrong += [f"{file.relative_to(ROOT)}: {name}" for name in missing]
    assert wrong == []

"""The modules and files that documents, docstrings and comments name exist: prose does not follow them by itself. And a
name of a module or class has one meaning.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, pages

DOTTED = re.compile(r"(?<![\w./@$-])(?:dpconvert|mtrain)(?:\.[A-Za-z_]\w*)+(?![\w/]|\.\w)")
PATH = re.compile(r"(?<![\w./-])(?:dpconvert|mtrain|tests|docs|benchmarks|manifests)/[\w./-]+\.(?:py|md|toml|css)\b")
PLACEHOLDERS = ("my-source", "my_source")
ENDINGS = ("err", "json", "log", "noted", "toml", "yml")  # of files, as in `mtrain.log`, and of a key of click
MODULES = [path for package in ("dpconvert", "mtrain") for path in sorted((ROOT / package).rglob("*.py"))]
FILES = [*pages(), *MODULES]


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


# --- one meaning for a name

# Two modules of one name are two sides of one idea: a command and what it does, a shape and its draft, or the same part
# of dpconvert and of mtrain. Any other needs a name of its own.
OF_BOTH_PROGRAMS = {"api", "atomic", "card", "catalog", "dense", "doctor", "errors", "index", "instances", "options"}
OF_BOTH_PROGRAMS |= {"folds", "outlines", "page", "pool", "rows", "breakhis", "compare", "labels", "images", "targets"}
OF_A_COMMAND = {
    "backbones",
    "compare",
    "doctor",
    "evaluate",
    "fetch",
    "labels",
    "options",
    "pool",
    "preview",
    "results",
}
OF_A_COMMAND |= {"robustness", "tasks", "watch", "breakhis"}
OF_A_SHAPE = {"coordinates", "cytomine", "folders", "layout", "masks", "points", "slides", "table", "tables", "fakes"}
OF_A_STEP = {"agenda", "command", "files", "hub", "network"}  # the race of a sweep and the sweep; both ways of a hub
ONE_IDEA = OF_BOTH_PROGRAMS | OF_A_COMMAND | OF_A_SHAPE | OF_A_STEP


def test_modules_of_one_name_are_of_one_idea() -> None:
    by_name = defaultdict(list)
    for path in MODULES:
        if not path.stem.startswith("__"):
            by_name[path.stem].append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in by_name.items() if len(paths) > 1 and name not in ONE_IDEA} == {}


def test_no_two_classes_have_the_same_name() -> None:
    by_name = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                by_name[node.name.lstrip("_")].append(path.relative_to(ROOT).as_posix())
    del by_name["Layout"]  # of each shape: its table `[layout]`
    assert {name: paths for name, paths in by_name.items() if len(paths) > 1} == {}

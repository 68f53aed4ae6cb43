"""What README and docs claim: the tree is the real one, every command exists and shows an example of itself."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from dpconvert import card
from dpconvert.cli import group as dpconvert
from dpconvert.manifest import catalog
from dpconvert.manifest.model import Manifest
from dpconvert.shards import index
from mtrain.cli import group as mtrain
from tests.documents import pages as all_pages
from tests.documents import tree

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs" / "format.md").read_text()
PROGRAMS = {"dpconvert": dpconvert, "mtrain": mtrain}
PAGES = all_pages()
PAGE_OF_COMMANDS = ROOT / "docs" / "reference" / "commands.md"
COMMANDS = [(program, name) for program, group in PROGRAMS.items() for name in group.commands]


@pytest.mark.parametrize("package", PROGRAMS)
def test_the_tree_of_the_readme_is_the_real_tree(package: str) -> None:
    real = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    real |= {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
    listed = tree()[package]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == real


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_command_shows_an_example_of_itself(program: str, name: str) -> None:
    help_text = PROGRAMS[program].commands[name].help or ""
    assert f"Example: {program} {name}" in help_text


def test_commands_named_in_the_documents_exist() -> None:
    options = {"dpconvert": set(dpconvert.commands), "mtrain": set(mtrain.commands)}
    options["dpconvert"] |= set(catalog.known())
    for path in PAGES:
        for program, word in re.findall(
            r"(?:^    |`|\$ )(dpconvert|mtrain) ([a-z][\w.-]*)", path.read_text(), re.MULTILINE
        ):
            placeholder = word == "my-source" or word.startswith(("manifests", "benchmarks")) or word.endswith(".toml")
            assert placeholder or word in options[program], f"{path.name}: {program} {word}"


def test_options_named_in_the_documents_exist() -> None:
    known = {
        option for group in PROGRAMS.values() for command in group.commands.values() for option in _options(command)
    }
    known |= set(_options(dpconvert.get_command(click.Context(dpconvert), "lung"))) | {"--help", "--version"}
    known |= {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"}  # torchrun's
    for path in PAGES:
        for line in re.findall(r"^.*(?:dpconvert|mtrain) .*--.*$", path.read_text(), re.MULTILINE):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)) <= known, f"{path.name}: {line}"


def _options(command: click.Command | None) -> list[str]:
    assert command is not None
    return [
        name
        for parameter in command.get_params(click.Context(command))
        for name in (*parameter.opts, *parameter.secondary_opts)
    ]


def test_links_between_documents_lead_somewhere() -> None:
    for path in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_format_page_names_every_field() -> None:
    fields = {field.alias or name for name, field in card.TaskCard.model_fields.items()}
    fields |= set(index.INDEX_COLUMNS)
    missing = sorted(field for field in fields if f"`{field}`" not in FORMAT)
    assert not missing


def test_the_two_commands_are_those_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "lint", "bench", "stress", "help"} <= set(targets)
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= set(targets)


def writer(name: str) -> Any:
    """One of the programs in docs/ that write pages."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated() -> dict[Path, str]:
    """Page -> what its writer would write now."""
    sources, commands, schemas = (writer(f"write_{name}") for name in ("sources", "commands", "schemas"))
    pages = {sources.PAGE: sources.page(sources.manifests()), commands.PAGE: commands.page()}
    return pages | {page: schemas.page(page) for page in schemas.HEADS} | {schemas.SCHEMA: schemas.schema()}


def test_the_generated_pages_are_what_their_writers_write() -> None:
    assert {path.stem for path in (ROOT / "docs").glob("write_*.py")} == {
        "write_sources",
        "write_commands",
        "write_schemas",
    }
    for path, text in generated().items():
        assert path.read_text() == text, f"{path.name}: run `make docs`"


def test_help_has_one_word_for_folders() -> None:
    """click's own is DIRECTORY; PATH is for what may be a file or a folder."""
    shown = re.findall(r"^\| `--[^`]* (DIR|DIRECTORY|FOLDER|PATH)`", PAGE_OF_COMMANDS.read_text(), re.MULTILINE)
    assert {word: shown.count(word) for word in set(shown) - {"DIR"}} == {"PATH": 1}


def test_help_names_every_value_in_the_words_of_this_project() -> None:
    """N, X or a noun; click's own are the names of its types."""
    types = r"^\| `--[^`]* (?:TEXT|INTEGER|FLOAT|INTEGER RANGE|FLOAT RANGE)`.*$"
    assert re.findall(types, PAGE_OF_COMMANDS.read_text(), re.MULTILINE) == []


def options_given_again() -> Iterator[tuple[str, click.Option]]:
    """Each option that may be given several times, with its command."""
    for program, name in COMMANDS:
        command = PROGRAMS[program].commands[name]
        for option in command.get_params(click.Context(command)):
            if isinstance(option, click.Option) and option.multiple:
                yield f"{program} {name} {option.opts[0]}", option


def test_help_says_which_options_may_be_repeated() -> None:
    silent = {where for where, option in options_given_again() if "may be repeated" not in (option.help or "")}
    assert silent == {"mtrain compare --lr"}  # takes one, and says so


GENERATED = {path.name for path in (ROOT / "docs" / "reference").glob("*.md")} - {"glossary.md", "python.md"}


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in GENERATED | {"sources.md"}], ids=lambda p: p.name)
def test_lines_of_a_page_fit_120_columns(page: Path) -> None:
    """Tables, code and pictures apart."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.startswith(("|", "    ", "!["))] == []


def test_the_manifest_names_every_shape() -> None:
    shapes = {path.stem for path in (ROOT / "dpconvert" / "readers" / "layouts").glob("[a-z]*.py")}
    text = Manifest.model_fields["shape"].description or ""
    assert {shape for shape in shapes if not re.search(rf"\b{shape}\b", text)} == set()


def test_every_key_of_a_manifest_and_every_setting_is_described() -> None:
    """Those of every shape's [layout] too."""
    schemas = writer("write_schemas")
    for page in schemas.HEADS:
        rows = [line.split(" | ") for line in schemas.page(page).splitlines() if line.startswith("| `")]
        assert len(rows) > 20
        assert [row[0] for row in rows if not row[-1].strip(" |")] == []
    assert "## [layout] of the shape table" in schemas.page(schemas.MANIFESTS)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Links and anchors between pages, and that every page is in the navigation, are mkdocs' to check.

    With --quiet it would not: it counts only the warnings that it shows.
    """
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path / "site").parent for path in (tmp_path / "site").rglob("index.html")}
    expected = {path.relative_to(ROOT / "docs").with_suffix("") for path in PAGES if path.is_relative_to(ROOT / "docs")}
    assert pages == {Path() if path == Path("index") else path for path in expected}
    home = (tmp_path / "site" / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!doi\.org)[^"]*\.(?:js|css|woff2?)', home)  # of another host

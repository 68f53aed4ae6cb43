"""What README and docs claim: the tree is the real one, every command exists and shows an example of itself."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click
import pytest

from dpconvert import card, manifest, shards
from dpconvert.cli import group as dpconvert
from mtrain.cli import group as mtrain

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs" / "format.md").read_text()
PROGRAMS = {"dpconvert": dpconvert, "mtrain": mtrain}
COMMANDS = [(program, name) for program, group in PROGRAMS.items() for name in group.commands]


def tree() -> dict[str, list[str]]:
    """Package -> names listed under it in the README's tree."""
    listed: dict[str, list[str]] = {}
    package = ""
    for line in README.partition("## Where things are")[2].partition("## More")[0].splitlines():
        if found := re.match(r" {4}(dpconvert|mtrain)/ ", line):
            package = found[1]
        elif package and (names := re.match(r" {6}((?:[a-z_]+(?:\.py|/) ?)+)", line)):
            listed.setdefault(package, []).extend(names[1].split())
    return listed


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
    options["dpconvert"] |= set(manifest.known()) | {"my.toml"}
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for program, word in re.findall(
            r"(?:^    |`|\$ )(dpconvert|mtrain) ([a-z][\w.-]*)", path.read_text(), re.MULTILINE
        ):
            placeholder = word == "my-source" or word.startswith("manifests")
            assert placeholder or word in options[program], f"{path.name}: {program} {word}"


def test_options_named_in_the_documents_exist() -> None:
    known = {
        option for group in PROGRAMS.values() for command in group.commands.values() for option in _options(command)
    }
    known |= set(_options(dpconvert.get_command(click.Context(dpconvert), "lung"))) | {"--help", "--version"}
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in re.findall(r"^.*(?:dpconvert|mtrain) .*--.*$", path.read_text(), re.MULTILINE):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)) <= known, f"{path.name}: {line}"


def _options(command: click.Command | None) -> list[str]:
    assert command is not None
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_format_page_names_every_field() -> None:
    fields = {field.alias or name for name, field in card.TaskCard.model_fields.items()}
    fields |= set(shards.INDEX_SCHEMA.names)
    missing = sorted(field for field in fields if f"`{field}`" not in FORMAT)
    assert not missing


def test_the_two_commands_are_those_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "lint", "bench", "stress", "help"} <= set(targets)
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= set(targets)


def test_the_page_of_sources_is_what_the_manifests_say() -> None:
    spec = importlib.util.spec_from_file_location("write_sources", ROOT / "docs" / "write_sources.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.PAGE.read_text() == writer.page(writer.manifests()), "run `make docs`"

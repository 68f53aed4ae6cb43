"""The arrows between modules, and that manifests are found wherever the package is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Set
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from dpconvert.manifest import catalog
from tests.changed import children, statements
from tests.documents import tree

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ("dpconvert.card", "dpconvert.shards.index", "dpconvert.shards.tar")


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module of a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module named in an import of a file, wherever the import stands; of `from a import b` also `a.b`."""
    found: set[str] = set()
    for node in statements(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def imports_when_run(path: Path) -> set[str]:
    """The modules that the imports of a file name, without those under `if TYPE_CHECKING:`."""
    found: set[str] = set()
    pending: list[ast.AST] = [parsed(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if is_module(name) else str(node.module) for name in named}
        pending += children(node)
    return found


def tops(names: Set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def own(names: Set[str], package: str) -> set[str]:
    """The second part of every name inside the package: 'dpconvert.image.Image' -> 'slide'."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def test_dpconvert_imports_neither_torch_nor_mtrain() -> None:
    for name, path in modules("dpconvert"):
        assert not tops(imports(path)) & {"torch", "torchvision", "mtrain", "sklearn", "timm"}, name


@pytest.mark.parametrize("package", ["dpconvert", "mtrain"])
def test_nothing_imports_the_command_line(package: str) -> None:
    for name, path in modules(package):
        if name != f"{package}.__main__" and not name.startswith(f"{package}.cli"):  # `python -m` does nothing else
            assert not own(imports(path), "dpconvert") & {"cli"}, name
            assert not own(imports(path), "mtrain") & {"cli"}, name


@pytest.mark.parametrize("package", ["dpconvert", "mtrain"])
def test_packages_import_only_what_the_readme_lists_below_them(package: str) -> None:
    floors = [name.removesuffix("/").removesuffix(".py") for name in tree()[package]]
    for name, path in modules(package):
        if name == package:
            continue
        floor = floors.index(name.split(".")[1])
        above = own(imports(path), package) & set(floors[:floor])
        assert not above, f"{name} imports {sorted(above)}, which the README lists above it"


OF_OURS = re.compile(r"^ *from (?:dpconvert|mtrain)[\w.]* import (\([^)]*\)|[^\n#]*)", re.MULTILINE)


@pytest.mark.parametrize("package", ["dpconvert", "mtrain", "tests", "benchmarks", "docs"])
def test_private_names_are_imported_nowhere(package: str) -> None:
    """Of our own modules; what several need has a public name."""
    for name, path in modules(package):
        listed = re.findall(r"[\w.]+", " ".join(OF_OURS.findall(path.read_text())))
        assert {one for one in listed if one.startswith("_")} <= {"__version__"}, name


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Wherever the import stands, but for those that only annotations of types need."""
    every = {name: path for package in ("dpconvert", "mtrain") for name, path in modules(package)}
    arrows = {name: imports_when_run(path) & every.keys() for name, path in every.items()}
    graph = TopologicalSorter({name: targets - {name} for name, targets in arrows.items()})
    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_openslide_is_imported_by_the_slide_module_alone() -> None:
    assert [name for name, path in modules("dpconvert") if "openslide" in tops(imports(path))] == [
        "dpconvert.image.pyramid"
    ]
    assert [name for name, path in modules("mtrain") if "openslide" in tops(imports(path))] == []


OF_THE_FORMAT = {f"mtrain.data.{name}" for name in ("pool", "task", "index", "rows")}


def test_mtrain_reads_cards_and_indices_in_one_place() -> None:
    for name, path in modules("mtrain"):
        used = {n for n in imports(path) if n.startswith("dpconvert.") and any(n.startswith(c) for c in CONTRACT)}
        if name == "mtrain.backbones.card":  # a network has a licence as a dataset has one
            used -= {"dpconvert.card", "dpconvert.card.Licence"}
        assert not used or name in OF_THE_FORMAT, f"{name} imports {sorted(used)}"


@pytest.mark.parametrize("package", ["dpconvert", "mtrain"])
def test_only_the_command_line_prints_or_exits(package: str) -> None:
    for name, path in modules(package):
        if (
            name.startswith(f"{package}.cli") or name == "dpconvert.runtime.terminal"
        ):  # of which the command lines are made
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "exit", "quit", "sys.exit", "click.echo"}, f"{name}:{node.lineno}"


@pytest.mark.parametrize("package", ["dpconvert", "mtrain"])
def test_no_exception_is_caught_without_being_named(package: str) -> None:
    for name, path in modules(package):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                reraised = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in node.body)
                broad = caught in {"", "Exception", "BaseException"}
                assert not broad or reraised, f"{name}:{node.lineno}"


@pytest.mark.parametrize("package", ["dpconvert", "mtrain"])
def test_every_module_says_what_it_is(package: str) -> None:
    assert [name for name, path in modules(package) if not ast.get_docstring(parsed(path))] == []


def test_manifests_are_found_from_a_checkout() -> None:
    assert catalog.manifest_folder() == ROOT / "manifests"
    names = {path.stem for path in (ROOT / "manifests" / "datasets").glob("*.toml")}
    assert catalog.known().keys() == names


def test_every_manifest_is_named_as_its_file_and_every_source_has_one() -> None:
    known = catalog.known()
    loaded = [catalog.load(path) for path in known.values()]
    assert [m.name for m in loaded] == list(known)
    assert len({m.task for m in loaded}) == len(loaded)
    readers = {path.stem.replace("_", "-") for path in (ROOT / "dpconvert" / "readers" / "datasets").glob("[a-z]*.py")}
    assert readers <= known.keys()


def test_examples_are_valid_manifests() -> None:
    for path in sorted((ROOT / "manifests" / "examples").glob("*.toml")):
        catalog.load(path)

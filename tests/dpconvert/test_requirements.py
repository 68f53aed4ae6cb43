"""Installed packages that are older than required are refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import metadata

import pytest

from dpconvert.runtime import requirements
from tests.dpconvert.conftest import Answer

Cli = Callable[..., Answer]

STATED = ["tifffile>=2026.3.3", "numpy>=2.1", 'torch>=2.5; extra == "train"', 'pytest>=8; extra == "dev"']


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The versions that are installed, of packages that the program requires by `STATED`."""
    versions = {"tifffile": "2026.3.3", "numpy": "2.1.0", "pytest": "7.0", "dpconvert": "1"}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(metadata, "requires", lambda _name: STATED)
    monkeypatch.setattr(metadata, "version", version)
    requirements.check.cache_clear()
    yield versions
    requirements.check.cache_clear()


def test_packages_of_the_required_versions_and_missing_extras_pass(installed: dict[str, str], dpconvert: Cli) -> None:
    assert list(requirements.outdated()) == []
    assert dpconvert("list").code == 0


@pytest.mark.parametrize("newer", ["2026.11.8", "2027.1rc1"])
def test_newer_versions_pass(newer: str, installed: dict[str, str]) -> None:
    installed["tifffile"] = newer
    assert list(requirements.outdated()) == []


def test_an_older_package_is_refused_in_one_line(installed: dict[str, str], dpconvert: Cli) -> None:
    installed["tifffile"] = "2025.1.10"
    answer = dpconvert("list")
    assert answer.code == 1
    assert "too old" in answer.err
    assert "expected >=2026.3.3; found 2025.1.10; pip install 'tifffile>=2026.3.3'" in answer.err
    assert dpconvert("list", "--help").code == 0


def test_all_older_packages_are_named(installed: dict[str, str], dpconvert: Cli) -> None:
    installed |= {"numpy": "1.26.4", "torch": "2.4.1+cu121"}
    assert "pip install 'numpy>=2.1' 'torch>=2.5'" in dpconvert("list").err


def test_a_checkout_that_is_not_installed_passes(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert list(requirements.outdated()) == []


def test_what_is_installed_here_satisfies_the_program() -> None:
    assert list(requirements.outdated()) == []

"""What is installed from the wheel and the sdist, in environments of their own, with every Python there is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from dpconvert import __version__
from dpconvert.manifest import catalog

ROOT = Path(__file__).parent.parent
PYTHONS = ["3.11", "3.12", "3.13"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, BUILD = PYPROJECT["project"], PYPROJECT["build-system"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return out


def test_the_wheel_holds_both_packages_and_the_manifests_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert wheel.name == f"dpconvert-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"dpconvert", "mtrain", f"dpconvert-{__version__}.dist-info"}
    shipped = {name for name in names if name.startswith("dpconvert/manifests/")}
    assert len(shipped) == len([path for path in (ROOT / "manifests").rglob("*") if path.is_file()])
    assert not [name for name in names if "__pycache__" in name or name.endswith((".tar", ".part"))]


def test_an_installed_wheel_carries_its_manifests(built: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        pytest.skip("needs uv")
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([uv, "pip", "install", "--no-deps", "--target", site, wheel], check=True, capture_output=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    code = "import dpconvert.manifest.catalog as m; print(m.__file__, *m.known())"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    where, *names = told.stdout.split()
    assert Path(where).is_relative_to(site)
    assert names == list(catalog.known())
    listed = subprocess.run(
        [sys.executable, "-m", "dpconvert.cli", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == len(names) + 1


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    [again], [wheel] = tmp_path.glob("*.whl"), built.glob("*.whl")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_sdist_holds_every_file_that_the_tests_read(built: Path) -> None:
    """All but what only a checkout has: settings of git, of its host, and of the host's machines."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert {name for name in tracked - names if not name.startswith((".ci/", ".github/", ".git"))} == set()


def test_the_citation_is_complete_and_of_this_version() -> None:
    """The keys that the Citation File Format 1.2.0 requires, and the version."""
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    keys = {line.partition(":")[0] for line in lines if not line.startswith((" ", "-"))}
    assert keys >= {"cff-version", "message", "title", "authors"}
    assert f"version: {__version__}" in lines


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    """openslide-bin is PyPI's: conda's openslide-python brings the library itself."""
    recipe = (ROOT / "conda.recipe" / "meta.yaml").read_text()
    wanted = {name.replace(">=", " >=") for name in PROJECT["dependencies"]} - {"openslide-bin >=4.0.1"}
    wanted |= {name.replace(">=", " >=") for name in BUILD["requires"]}
    assert wanted <= set(re.findall(r"- (\S+ >=\S+)", recipe))


def test_the_page_of_the_package_index_has_no_link_that_leads_nowhere(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    metadata = zipfile.ZipFile(wheel).read(f"dpconvert-{__version__}.dist-info/METADATA").decode()
    assert "Description-Content-Type: text/markdown" in metadata
    targets = re.findall(r"\]\(([^)]+)\)", metadata)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "See a pool of open data (`docs/how-to/open-pool.md`)." in metadata
    assert "- `docs/real-run.md`: " in metadata


def test_versions_are_locked_by_name_and_number() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+( ; .+)?", line) for line in lines)


def interpreter(uv: str, version: str) -> str | None:
    """An interpreter of this version on the path, or among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in sorted(pyenv.glob(f"{version}.*/bin/python")):
        return str(python)
    found = subprocess.run([uv, "python", "find", version], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


@pytest.mark.stress
@pytest.mark.parametrize("version", PYTHONS)
def test_a_clean_environment_needs_nothing_else(built: Path, tmp_path: Path, version: str) -> None:
    """The converter alone: no torch; both programs start; a fake is converted and verified."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None
    python_there = interpreter(uv, version)
    if python_there is None:
        pytest.skip(f"no Python {version} here")
    environment, [wheel] = tmp_path / "environment", built.glob("*.whl")
    subprocess.run([uv, "venv", "--quiet", "--python", python_there, str(environment)], check=True)
    python, programs = environment / "bin" / "python", environment / "bin"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), str(wheel)], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    for arguments in (
        ["dpconvert", "--version"],
        ["mtrain", "--help"],
        ["dpconvert", "fake", "warwick-crc"],
        ["dpconvert", "warwick-crc", "--quiet"],
        ["dpconvert", "verify", "shards"],
    ):
        command = [str(programs / arguments[0]), *arguments[1:]]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    told = subprocess.run([programs / "mtrain", "fit"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "dpconvert[train]" in told.stderr
    assert told.stderr.count("\n") == 1

"""The notebooks of the documentation run from top to bottom, and are kept without their output."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mtrain.cli import group as mtrain
from tests.documents import ROOT

RUN = subprocess.run
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_output(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[] for _ in cells]
    assert {cell["execution_count"] for cell in cells} == {None}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and so the commands that they start: each start of torch costs seconds."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("subprocess.run", command)
    pyplot.switch_backend("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [shown_by("".join(cell["source"]), names) for cell in cells]
    pyplot.close("all")
    check(shown)


def shown_by(source: str, names: dict[str, Any]) -> str:
    """What a cell prints, and its last value, as a notebook shows them."""
    *body, last = ast.parse(source).body
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            print("" if source.endswith(";") else repr(value))  # noqa: T201
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return printed.getvalue()


def command(words: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    if words[:3] != [sys.executable, "-m", "mtrain"]:
        return RUN(words, **options)
    done = CliRunner().invoke(mtrain, words[3:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return subprocess.CompletedProcess(words, 0, done.stdout, done.stderr)


@pytest.mark.stress
@pytest.mark.timeout(900)  # it starts three processes that import torch
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    check([text for cell in notebook.cells if cell.cell_type == "code" for text in printed(cell)])


def check(shown: list[str]) -> None:
    assert any("Density ['few', 'many'] 60 images" in text for text in shown)
    assert any("| Size | svm | ROC AUC | validation | 12 (" in text for text in shown)
    assert any("torch.Size([8, 1280])" in text for text in shown)


def printed(cell: Any) -> list[str]:
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]

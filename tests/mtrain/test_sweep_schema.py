"""The JSON Schema of sweep files takes what `mtrain sweep` takes and finds what it refuses."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mtrain.config import FitConfig
from mtrain.errors import UsageError
from mtrain.sweep.schema import json_schema
from mtrain.sweep.spec import FIXED, load_sweep

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "manifests" / "sweeps").glob("*.toml"))
PAGE = (ROOT / "docs" / "reference" / "sweeps.md").read_text()
WHOLE = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[-1]


def faults(text: str) -> list[str]:
    """What the schema finds, as paths."""
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    found = jsonschema.Draft202012Validator(schema).iter_errors(tomllib.loads(text))
    return ["/".join(map(str, error.absolute_path)) for error in found]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_of_the_program_are_valid(path: Path) -> None:
    assert faults(path.read_text()) == []


def test_the_example_of_the_page_is_valid_and_is_read(tmp_path: Path) -> None:
    assert faults(WHOLE) == []
    (tmp_path / "mine.toml").write_text(WHOLE)
    sweep = load_sweep(str(tmp_path / "mine.toml"))
    assert len(list(sweep.trainings())) == 2 * 2 * 2 * 2
    assert sweep.leave_out == (("Lung",), ("Breast1", "Breast2"))


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("seeds = [0, 1]", "seeds = []", "seeds"),
        ("seeds = [0, 1]", "", ""),
        ("lr = [1e-4, 1e-3]", "lr = [-1.0]", "grid/lr/0"),
        ("batch = 64", "bach = 64", "fit"),
        ("batch = 64", "lr = 0.1", "fit"),
        ("warmup = [true]", "warmups = [true]", "grid"),
        ("iterations = 5000", "iterations = 'many'", "fit/iterations"),
    ],
)
def test_both_refuse_the_same_mistakes(old: str, new: str, where: str, tmp_path: Path) -> None:
    wrong = WHOLE.replace(old, new)
    assert faults(wrong) == [where]
    (tmp_path / "mine.toml").write_text(wrong)
    with pytest.raises(UsageError):
        load_sweep(str(tmp_path / "mine.toml"))


def test_every_setting_of_a_training_is_described() -> None:
    fit: dict[str, Any] = json_schema()["properties"]["fit"]["properties"]
    assert fit.keys() == FitConfig.model_fields.keys() - FIXED.keys()
    assert all(field.get("description") for field in fit.values())

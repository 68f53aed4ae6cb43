"""What can be imported is stated, documented and typed: the names, their docstrings, and the five lines of each."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dpconvert
import dpconvert.plugin
import mtrain
from dpconvert.arguments import in_arguments, of_model
from dpconvert.manifest.catalog import find
from dpconvert.readers.fakes import draw_fake
from tests.documents import ROOT
from tests.mtrain.pools import write_pool

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text()
PUBLIC: dict[Any, set[str]] = {
    dpconvert: {"Options", "TaskCard", "UserError", "convert", "load_task"},
    dpconvert.plugin: {
        "Annotation",
        "Annotations",
        "FakeTree",
        "MatchedFile",
        "Image",
        "LabelMask",
        "ManifestError",
        "ReadError",
        "Regions",
        "SourceImage",
        "Source",
        "SourceError",
        "asap",
        "coco",
        "masks",
        "ndpa",
        "points",
        "qupath",
    },
    mtrain: {
        "FitConfig",
        "Pool",
        "ShardDataset",
        "TransferOptions",
        "fit",
        "load_network",
        "shared_network",
        "transfer",
    },
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in sorted(names)]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_the_public_names_are_these_and_no_others(module: Any) -> None:
    assert set(module.__all__) - {"__version__"} == PUBLIC[module]
    assert {name for name in dir(module) if not name.startswith("_")} >= PUBLIC[module]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_name_has_a_docstring_and_stands_on_the_page(module: Any, name: str) -> None:
    thing = getattr(module, name)
    assert inspect.getdoc(thing)
    shown = getattr(thing, "__qualname__", name).rpartition(".")[2]
    assert re.search(rf"(?:::: [\w.]+\.{shown}$|`{name}`)", PAGE, re.MULTILINE)
    if inspect.isfunction(thing):
        hints = inspect.get_annotations(thing)
        assert hints.keys() == inspect.signature(thing).parameters.keys() | {"return"}


def test_both_packages_say_that_they_are_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in ("dpconvert", "mtrain"))


def test_importing_either_package_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, dpconvert, mtrain; print(sorted({'torch', 'numpy', 'pydantic'} & {*sys.modules}))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_the_functions_do_what_the_commands_do(tmp_path: Path) -> None:
    """Two tasks converted, one network trained without the one, and its transfer to it scored, from Python alone."""
    from click.testing import CliRunner

    from dpconvert.cli import group

    for name in ("umcm-colorectal", "bone-marrow"):
        drawn = CliRunner().invoke(group, ["fake", name, "--out", str(tmp_path / "sources")])
        assert drawn.exit_code == 0
        card = dpconvert.convert(name, tmp_path / "sources" / name, tmp_path / "shards", workers=1)
        assert dpconvert.load_task(tmp_path / "shards" / card.task) == card
    pool = mtrain.Pool.open(tmp_path / "shards", leave_out=[card.task])
    assert repr(pool) == "Pool(1 task: UMCMColorectal)"
    assert repr(pool.tasks) == "(Task('UMCMColorectal': 8 classes; train 144, val 0, test 96),)"
    assert repr(pool.tasks[0].rows["train"]) == "Rows(144 samples)"
    assert repr(card).startswith("TaskCard(task='BoneMarrow', kind='classification', classes=[")
    settings: dict[str, Any] = {"backbone": "resnet18", "weights": "random", "size": 32, "workers": 0, "device": "cpu"}
    settings |= {"optimizer": "adamw", "momentum": 0.5}
    with pytest.warns(UserWarning, match="momentum is not used: `optimizer` adamw has none"):
        run = mtrain.fit(
            tmp_path / "shards", [card.task], runs=tmp_path / "runs", iterations=2, batch=4, adapt_batches=1, **settings
        )
    options = mtrain.TransferOptions(workers=0)
    result = mtrain.transfer(run.path, card.task, mode="knn", options=options)
    assert result["task"] == card.task
    assert result["set"] == "val"
    network = mtrain.load_network(run)
    assert not network.training
    with pytest.raises(dpconvert.UserError, match="no setting named 'learning_rate'"):
        mtrain.fit(tmp_path / "shards", learning_rate=0.1)
    with pytest.raises(dpconvert.UserError, match=r"^leaveout: is not known here \(did you mean 'leave_out'\?\)"):
        mtrain.fit(tmp_path / "shards", leaveout=("Alpha",))
    with pytest.raises(dpconvert.UserError, match="no mode named 'svn'; did you mean svm"):
        mtrain.transfer(run, card.task, mode="svn")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lr": -1}, "lr: must be greater than 0; found -1"),
        ({"batch": "x"}, "batch: must be a whole number; found 'x'"),
        ({"rate": 1}, "rate: is not known here"),
        ({"tune": "heads", "batchnorm": "per-task"}, "`tune`"),
    ],
)
def test_a_setting_that_is_none_is_one_line_that_names_the_argument(given: dict[str, Any], said: str) -> None:
    with pytest.raises(dpconvert.UserError) as caught:
        mtrain.FitConfig(**given)
    assert said in str(caught.value)
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pools_and_networks_are_refused_by_the_names_of_arguments(tmp_path: Path) -> None:
    shards = write_pool(tmp_path / "shards", sizes={"train": 2})
    assert len(mtrain.Pool.open(shards, "Alpha").tasks) == 2
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: mtrain.Pool.open("none"), "give the folder of the tasks with `shards`"),
        (lambda: mtrain.Pool.open(shards, ["Alpha", "Beta", "Gamma"]), "found `leave_out` Alpha, Beta, Gamma"),
        (lambda: mtrain.Pool.open(shards, [3]), "leave_out: must be names of tasks; found 3"),  # type: ignore[list-item]
        (lambda: mtrain.shared_network("resnet18", "random", "teacher"), "`key` names a part of a file"),
        (lambda: mtrain.shared_network(5), "name: must be that of a network; found 5"),  # type: ignore[arg-type]
    ]
    for call, said in refused:
        with pytest.raises(dpconvert.UserError) as caught:
            call()
        assert said in str(caught.value)


@pytest.mark.parametrize("given", [{"limit": 0}, {"limit": -1}, {"samples_per_shard": 0}])
def test_a_number_that_leaves_no_samples_is_refused_as_at_the_command_line(given: dict[str, int]) -> None:
    with pytest.raises(dpconvert.UserError, match=r"Options: \w+: must be at least 1; found"):
        dpconvert.Options(**given)  # type: ignore[arg-type]  # mypy reads int for all


def test_an_option_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(dpconvert.UserError, match=r"image_formt: is not known here .did you mean 'image_format'"):
        dpconvert.Options(image_formt="png")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"workers": 0}, "workers: must be a whole number, at least 1; found 0"),
        ({"workers": "2"}, "workers: must be a whole number, at least 1; found '2'"),
        ({"limit_memory": -1}, "limit_memory: must be a whole number, at least 0; found -1"),
        ({"limit_seconds": 0.5}, "limit_seconds: must be a whole number, at least 0; found 0.5"),
        ({"options": {"split": "paper"}}, "options: must be dpconvert.Options; found {'split': 'paper'}"),
    ],
)
def test_arguments_are_checked_as_options_are(given: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(dpconvert.UserError) as raised:
        dpconvert.convert("umcm-colorectal", tmp_path, tmp_path / "shards", **given)
    assert str(raised.value) == expected
    assert not (tmp_path / "shards").exists()


def test_errors_name_arguments_where_those_of_the_commands_name_options(tmp_path: Path) -> None:
    with pytest.raises(dpconvert.UserError, match=r"name their folder with `files`$"):
        dpconvert.convert(Path("umcm-colorectal"), tmp_path / "none")
    with pytest.raises(dpconvert.UserError, match="with `shards`, or convert a source with `dpconvert NAME --out DIR`"):
        mtrain.fit(tmp_path / "none")
    with pytest.raises(dpconvert.UserError, match=r"^`backbone`: must be text"):
        mtrain.fit(tmp_path, backbone=3)


def test_only_known_options_outside_of_commands_become_arguments() -> None:
    names = of_model(dpconvert.Options) | {"out": "out"}
    text = "no --limit, --dense or --no-dense; `dpconvert x --out DIR`; another --out; --outer, --seeds"
    expected = "no `limit`, `dense=True` or `dense=False`; `dpconvert x --out DIR`; another `out`; --outer, --seeds"
    assert in_arguments(text, names) == expected


def test_a_missing_folder_of_the_users_sources_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DPCONVERT_PATH", str(tmp_path / "none"))
    with pytest.raises(
        dpconvert.UserError, match=r"no source named 'mine'; found no folder .*none, which DPCONVERT_PATH"
    ):
        dpconvert.convert("mine")


def test_a_source_that_states_no_download_and_no_example_shows_its_pattern(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dpconvert.cli import group

    text = 'task = "Mine"\nshape = "folders"\nclasses = ["a", "b"]\n[split.strict]\nshare = [0.6, 0.2, 0.2]\n'
    (tmp_path / "mine.toml").write_text(text + "[files.images]\npattern = '(?P<class>[ab])/(?P<name>.+)\\.png$'\n")
    shown = CliRunner().invoke(group, ["show", str(tmp_path / "mine.toml")], catch_exceptions=False).output
    assert "get it" not in shown
    assert r"images, named (?P<class>[ab])/(?P<name>.+)\.png$" in shown


def test_a_program_needs_no_guard_and_no_file(tmp_path: Path) -> None:
    """As it is typed into `python -`: a worker process that imported it would fail, or start workers itself."""
    draw_fake(find("warwick-crc"), tmp_path)
    program = "import dpconvert; print(dpconvert.convert('warwick-crc', 'warwick-crc', 'shards', workers=2))"
    done = subprocess.run([sys.executable, "-"], input=program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("task='WarwickCRC'")

"""Releases: everything trains, by a door of their own, with what was chosen before; and the card says so."""

from __future__ import annotations

import json
import subprocess
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from dpconvert import card as cards
from mtrain import cli
from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.data.task import Permit, with_test
from mtrain.disk.documents import write_document
from mtrain.errors import RunError, ShardError, UsageError
from mtrain.export import archive, release
from mtrain.export.release import ReleaseRequest, configs, whole
from mtrain.runs.run_folder import Run
from mtrain.sweep.combination import Combination
from mtrain.sweep.store import Store
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.sweeps import write_sweep
from tests.mtrain.test_evaluate import tiny_network
from tests.mtrain.test_figures import write_evaluation
from tests.mtrain.test_fit import Notes

TINY = {
    "backbone": "tiny",
    "weights": "random",
    "iterations": 3,
    "batch": 8,
    "size": 32,
    "adapt_batches": 1,
    "workers": 0,
    "device": "cpu",
}
CHOSEN = Combination("tiny", 1e-3, 5.0, warmup=False)


@pytest.fixture(autouse=True)
def networks_are_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mtrain.train.start", "mtrain.export"):
        monkeypatch.setattr(f"{module}.shared_network", tiny_network)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    return str(write_pool(tmp_path / "shards", ("Alpha", "Beta")))


def asked(folder: Path, **changed: Any) -> ReleaseRequest:
    places = {"runs": folder / "runs", "out": folder / "release", "evaluations": folder / "evaluations"}
    return ReleaseRequest(**{"shards": str(folder / "shards"), "settings": TINY} | places | changed)


def a_sweep(folder: Path, shards: str) -> Store:
    """A sweep whose selection is the combination CHOSEN."""
    store = write_sweep(folder / "sweeps" / "toy", lambda *_: 0.5, combinations=[CHOSEN])
    fit = {name: value for name, value in TINY.items() if name != "backbone"} | {"momentum": 0.8, "warmup": 1}
    plan = store.plan()
    plan["sweep"] = {"name": "toy", "shards": shards, "leave_out": ["Alpha"], "seeds": [0], "fit": fit}
    write_document(store.path / "sweep.json", plan)
    store.write_selection({"over_all_tasks": {"tiny": asdict(CHOSEN), "other": None}})
    return store


def test_everything_trains_once_and_nothing_is_left_to_validate(shards: str) -> None:
    pool = open_pool(shards)
    found = whole(pool)
    for before, after in zip(pool.tasks, found.tasks, strict=True):
        opened = with_test(before, Permit.RELEASE)
        keys = [key for split in ("train", "val", "test") for key in opened.rows[split].key]
        assert list(after.rows["train"].key) == keys
        assert len(keys) == len(set(keys)) == 24 + 8 + 8
        assert list(after.rows) == ["train", "val"]
        assert not len(after.rows["val"])
        assert "test" not in before.rows  # the pool that others hold stays shut
    assert found.digest != pool.digest
    assert {task.trains for task in found.tasks} == {("train", "val", "test")}


def test_a_release_trains_on_the_test_images_and_leaves_weights_with_a_card(shards: str, tmp_path: Path) -> None:
    state, made = release.release(asked(tmp_path, seeds=(0, 1)), Notes())
    assert state == "finished"
    assert len({one.folder for one in made}) == 2
    assert {path.name for path in made[0].folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "release.json",
        "README.md",
        "SHA256SUMS",
        "trained_on.json",
        "zenodo.json",
    }
    assert load_file(made[0].folder / "model.safetensors").keys() == tiny_network("tiny").body.state_dict().keys()
    card = (made[0].folder / "README.md").read_text()
    assert "| Alpha | 2 | 40 |" in card
    assert "test sets of every task, 80 images" in card
    assert "What to expect" not in card
    told = json.loads((made[0].folder / "release.json").read_text())
    assert (told["splits"], told["tasks"]) == (["train", "val", "test"], {"Alpha": 40, "Beta": 40})
    assert str(tmp_path) not in (made[0].folder / "release.json").read_text()
    run = Run(tmp_path / "runs" / made[0].folder.name)
    assert run.about()["trained_on"] == {task: ["train", "val", "test"] for task in ("Alpha", "Beta")}
    assert run.config().validate_every == 0
    before = (made[0].folder / "model.safetensors").read_bytes(), card
    notes = Notes()
    release.release(asked(tmp_path), notes)
    assert any("already finished" in note for note in notes.said)
    assert ((made[0].folder / "model.safetensors").read_bytes(), (made[0].folder / "README.md").read_text()) == before


def test_the_archive_is_complete_its_sums_are_right_and_its_metadata_are_zenodos(tmp_path: Path) -> None:
    write_task(tmp_path / "shards" / "Alpha", sizes={"train": 8, "val": 4, "test": 4})
    _, (made,) = release.release(asked(tmp_path, creators=("Curie, Marie", "Roux, Émile")), Notes())
    archive = made.folder.with_name(f"{made.folder.name}.zip")
    before = archive.read_bytes()
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        packed.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / made.folder.name
    assert {path.name for path in folder.iterdir()} == {path.name for path in made.folder.iterdir()}
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.count(": OK")) == (0, len(list(folder.iterdir())) - 1)
    fields = json.loads((folder / "zenodo.json").read_text())["metadata"]
    assert fields["creators"] == [{"name": "Curie, Marie"}, {"name": "Roux, Émile"}]
    assert fields.keys() >= {"title", "upload_type", "description", "creators"}  # what a record needs
    assert "Alpha" in fields["description"]
    assert "(16 images)" in fields["title"]
    release.release(asked(tmp_path, creators=("Curie, Marie", "Roux, Émile")), Notes())
    assert archive.read_bytes() == before


@pytest.mark.parametrize(
    ("licences", "license"),
    [
        (["CC BY 4.0", "CC BY 4.0"], "cc-by-4.0"),
        (["CC BY 4.0", "CC0"], None),
        (["own terms"], None),
        (["closed"], None),
    ],
)
def test_a_record_has_a_licence_only_if_all_data_have_that_one(licences: list[str], license: str | None) -> None:
    given = [("CC BY 4.0" if name == "closed" else name, name != "closed") for name in licences]
    fields = archive.metadata(FitConfig(shards="s"), {"A": 1}, given, ())
    assert (fields.get("license"), fields.get("access_right")) == (license, license and "open")


def test_the_test_set_decides_the_weights_and_without_it_there_is_no_release(tmp_path: Path) -> None:
    found = []
    for size in (8, 4):
        place = tmp_path / str(size)
        write_task(place / "shards" / "Alpha", sizes={"train": 24, "val": 8, "test": size})
        _, (made,) = release.release(asked(place), Notes())
        found.append((made.folder / "model.safetensors").read_bytes())
    assert found[0] != found[1]
    (tmp_path / "8" / "shards" / "Alpha" / "test-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"test-000000\.tar: missing"):
        release.release(asked(tmp_path / "8"), Notes())


def test_the_papers_choices_are_the_defaults(tmp_path: Path) -> None:
    (dense,) = configs(asked(tmp_path, settings={}))
    (residual,) = configs(asked(tmp_path, settings={"backbone": "resnet50"}))
    (own,) = configs(asked(tmp_path, settings={"backbone": "resnet50", "lr": 0.5}))
    assert [(c.backbone, c.lr, c.tau, c.warmup) for c in (dense, residual, own)] == [
        ("mtdp_densenet121", 1e-4, 5.0, 5000),
        ("resnet50", 1e-3, 1.0, 5000),
        ("resnet50", 0.5, 1.0, 5000),
    ]


def test_a_sweep_gives_the_settings_and_its_evaluations_what_to_expect(shards: str, tmp_path: Path) -> None:
    store = a_sweep(tmp_path, shards)
    (config,) = configs(asked(tmp_path, store=store, settings={"iterations": 4}))
    assert (config.backbone, config.lr, config.tau, config.warmup) == ("tiny", 1e-3, 5.0, 0)
    assert (config.momentum, config.iterations, config.batch, config.leave_out) == (0.8, 4, 8, ())
    own, a_release = str(store.path / "runs" / f"{0:024}"), asked(tmp_path, store=store, settings={})
    for number, (score, source, run) in enumerate(
        [(0.90, "multitask", own), (0.94, "multitask", own), (0.8, "imagenet", "x"), (0.1, "multitask", "another")]
    ):
        about = {"source": source, "run": run, "seed": number, "identity": {"size": configs(a_release)[0].size}}
        write_evaluation(tmp_path / "evaluations", number, score=score, **about)
    foreign = {"source": "imagenet", "run": "y", "seed": 0, "identity": {"size": 999}}
    write_evaluation(tmp_path / "evaluations", 9, score=0.3, **foreign)
    notes = Notes()
    _, (made,) = release.release(a_release, notes)
    assert any("svm-imagenet: 1 evaluation left out, of size 999" in said for said in notes.said)
    card = (made.folder / "README.md").read_text()
    assert "| Lung | accuracy | 80.00 | 92.00 ± 2.83 |" in card
    assert "They were trained with" not in card
    _, (shorter,) = release.release(asked(tmp_path, store=store, settings={"iterations": 1, "workers": 1}), notes)
    told = f"They were trained with iterations {configs(a_release)[0].iterations}, and this network with iterations 1:"
    assert told in (shorter.folder / "README.md").read_text()
    with pytest.raises(UsageError, match=r"no combination is selected for other.*networks: tiny, other"):
        configs(asked(tmp_path, store=store, settings={"backbone": "other"}))
    (store.path / "selected.json").unlink()
    with pytest.raises(RunError, match="nothing has been selected; run `mtrain select` first"):
        configs(asked(tmp_path, store=store))


def test_a_release_says_of_the_tasks_that_the_sweep_chose_alone_that_it_saw_them(shards: str, tmp_path: Path) -> None:
    store = a_sweep(tmp_path, shards)
    plan = store.plan()
    plan["sweep"]["fit"]["tasks"] = ["Beta"]
    write_document(store.path / "sweep.json", plan)
    notes = Notes()
    _, (made,) = release.release(asked(tmp_path, store=store, settings={}), notes)
    assert json.loads((made.folder / "release.json").read_text())["tasks"] == {"Beta": 40}
    about = json.loads((made.folder / "zenodo.json").read_text())["metadata"]
    assert about["title"] == "tiny pre-trained on 1 task of histology and cytology (40 images), seed 0"
    assert "Alpha" not in about["description"]
    assert "test sets of every task, 40 images" in (made.folder / "README.md").read_text()
    assert any("leave out 1 task of 2" in said for said in notes.said)


def test_licences_are_asked_about_before_the_training(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = cards.load(Path(shards) / "Beta")
    closed = card.model_copy(update={"licence": card.licence.model_copy(update={"open": False})})
    (Path(shards) / "Beta" / cards.FILE_NAME).write_bytes(cards.dump(closed))
    with pytest.raises(UsageError, match=r"licence of Beta \(CC0-1.0\) does not allow everyone to share"):
        release.release(asked(tmp_path), Notes())
    assert not (tmp_path / "runs").exists()
    monkeypatch.chdir(tmp_path)
    words = [w for name, value in TINY.items() if name != "adapt_batches" for w in (f"--{name}", str(value))]
    answer = CliRunner().invoke(cli.group, ["release", "--quiet", "--accept-licence", *words], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    assert (tmp_path / answer.stdout.strip() / "README.md").is_file()

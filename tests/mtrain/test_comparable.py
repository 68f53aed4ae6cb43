"""What is said of scores that stand in one row though nothing chose their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtrain.disk.documents import write_document
from mtrain.evaluation.comparing.comparable import joint_notes
from mtrain.evaluation.paper_tables import POOL, Evaluation
from mtrain.sweep.store import Store
from tests.mtrain.sweeps import write_sweep


def evaluation(mode: str, training: dict[str, Any], source: str = "multitask") -> Evaluation:
    about = {"task": "Lung", "metric": "roc_auc", "backbone": "resnet50", "seed": 0, "set": "test", "n_train": 9}
    return Evaluation.model_validate(
        {**about, "mode": mode, "source": source, "score": 0.5, "training": {POOL: mode} | training}
    )


def test_settings_of_joint_networks_that_differ_from_those_of_the_row_are_reported() -> None:
    joint, apart = {"iterations": 9, "lr": 0.1, "tau": 5.0}, {"iterations": 9, "lr": 0.2, "tau": 5.0}
    (note,) = joint_notes([evaluation("joint", joint), evaluation("svm", apart), evaluation("svm", {}, "imagenet")])
    assert note.startswith("Lung, resnet50, joint: trained with lr 0.1, unlike the multi-task networks beside it")
    assert joint_notes([evaluation("joint", joint), evaluation("svm", joint)]) == []
    (alone,) = joint_notes([evaluation("joint", joint)])
    assert "trained with iterations 9, lr 0.1, tau 5.0; no selection" in alone


def test_a_sweep_that_left_several_sets_out_at_once_says_so_wherever_it_is_used(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweep", lambda *_: 0.5)
    assert store.notes() == []
    plan = {**store.plan(), "sweep": {"together": 4}}
    (tmp_path / "other").mkdir()
    write_document(tmp_path / "other" / "sweep.json", plan)
    assert "left 4 sets out at once" in Store(tmp_path / "other").notes()[0]

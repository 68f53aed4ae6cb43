import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpconvert import card as cards
from mtrain.data.pool import find_task, leave_out, open_pool, training_on
from mtrain.data.task import Permit
from mtrain.errors import ShardError, UsageError
from tests.mtrain.pools import write_pool, write_task


def test_a_pool_is_every_task_folder_in_name_order(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path, ("Gamma", "Alpha", "Beta")))
    assert [task.name for task in pool.tasks] == ["Alpha", "Beta", "Gamma"]
    assert {split: len(rows) for split, rows in pool.tasks[0].rows.items()} == {"train": 24, "val": 8}


def test_rows_lead_to_the_bytes_of_their_image(tmp_path: Path) -> None:
    (task,) = open_pool(write_pool(tmp_path, ("Alpha",))).tasks
    rows = task.rows["train"].take([0, 11, 23])
    assert list(rows.key) == ["alpha-train-00000", "alpha-train-00011", "alpha-train-00023"]
    assert list(rows.label) == [0, 1, 1]
    assert list(rows.group) == ["toy:train-0", "toy:train-2", "toy:train-5"]
    for shard, offset in zip(rows.shard, rows.offset, strict=True):
        assert task.shards[shard].read_bytes()[offset : offset + 4] == b"\x89PNG"


def test_the_digest_names_the_data_and_not_the_place(tmp_path: Path) -> None:
    here, there, other = (tmp_path / name for name in "abc")
    assert open_pool(write_pool(here)).digest == open_pool(write_pool(there)).digest
    assert open_pool(write_pool(here)).digest != open_pool(write_pool(other, shape=(32, 40))).digest


def test_a_pool_opens_in_a_folder_whose_name_is_not_in_utf_8(tmp_path: Path) -> None:
    digest = open_pool(write_pool(tmp_path / "here")).digest
    there = (tmp_path / "here").rename(tmp_path / os.fsdecode(b"M\xfcller"))
    assert open_pool(there).digest == digest


def test_names_match_without_case_and_dashes(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path, ("BoneMarrow", "Lung")))
    assert find_task(pool, "bone-marrow").name == find_task(pool, "BONE_MARROW").name == "BoneMarrow"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path, ("BoneMarrow", "Lung")))
    with pytest.raises(UsageError, match=r"no task 'Lnug' in the pool; did you mean Lung\?"):
        find_task(pool, "Lnug")


def test_related_tasks_leave_in_both_directions_and_from_task_to_task(tmp_path: Path) -> None:
    write_pool(tmp_path, ("Alpha", "Omega"))
    write_task(tmp_path / "Beta", related=["Alpha"])
    write_task(tmp_path / "Gamma", related=["Beta", "NotHere"])
    pool, left, notes = leave_out(open_pool(tmp_path), ["alpha"])
    assert [task.name for task in pool.tasks] == ["Omega"]
    assert [task.name for task in left] == ["Alpha", "Beta", "Gamma"]
    assert notes == ("Beta is left out too: related to Alpha", "Gamma is left out too: related to Beta")


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    """A name would mean either of them, and a copy would be drawn twice as often."""
    write_pool(tmp_path, ("Lung", "Lu-ng"), sizes={"train": 4})
    with pytest.raises(ShardError, match=r"two tasks are called Lung, .*; found another in .*/Lu-ng; move one"):
        open_pool(tmp_path)


def test_a_training_set_of_one_class_is_reported(tmp_path: Path) -> None:
    write_task(tmp_path / "Same", classes=1)
    write_task(tmp_path / "Two")
    pool = open_pool(tmp_path)
    assert pool.empty_sets == ["Same: what it trains on is of one class, from which a network learns nothing"]


def test_a_task_named_twice_leaves_once(tmp_path: Path) -> None:
    _, left, notes = leave_out(open_pool(write_pool(tmp_path)), ["Alpha", "alpha"])
    assert [task.name for task in left] == ["Alpha"]
    assert notes == ()


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every task is left out"):
        leave_out(open_pool(write_pool(tmp_path, ("Alpha",))), ["Alpha"])


def test_where_nothing_is_left_the_named_tasks_are_distinguished_from_their_relatives(tmp_path: Path) -> None:
    write_task(tmp_path / "Alpha", related=("Beta",))
    write_task(tmp_path / "Beta")
    with pytest.raises(UsageError, match=r"found --leave-out Alpha; Beta is left out too: related to Alpha$"):
        leave_out(open_pool(tmp_path), ["Alpha"])


def test_no_folder_and_an_empty_folder_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder of shards"):
        open_pool(tmp_path / "absent")
    with pytest.raises(UsageError, match="no task in this folder"):
        open_pool(tmp_path)
    write_task(tmp_path / "Alpha")
    with pytest.raises(UsageError, match=f"this is one task, not the folder of the tasks; give {tmp_path}$"):
        open_pool(tmp_path / "Alpha")


def test_unfinished_tasks_are_left_aside_and_named(tmp_path: Path) -> None:
    write_pool(tmp_path)
    (tmp_path / "Beta" / cards.FILE_NAME).unlink()
    pool = open_pool(tmp_path)
    assert [task.name for task in pool.tasks] == ["Alpha", "Gamma"]
    assert pool.notes == [
        "1 unfinished task not used: Beta; run the conversion again (`dpconvert verify` lists what is missing)"
    ]
    with pytest.raises(UsageError, match="the conversion of Beta is unfinished; run it again"):
        leave_out(pool, ["beta"])
    assert leave_out(pool, ["Alpha"])[0].notes == pool.notes
    for name in ("Alpha", "Gamma"):
        (tmp_path / name / cards.FILE_NAME).unlink()
    with pytest.raises(
        UsageError, match="no task in this folder; found unfinished: Alpha, Beta, Gamma; finish the conversion"
    ):
        open_pool(tmp_path)


def test_a_folder_in_which_no_conversion_began_is_no_task(tmp_path: Path) -> None:
    """As `dpconvert NAME --source WRONG` leaves it."""
    write_pool(tmp_path, ("Alpha",))
    (tmp_path / "Beta").mkdir()
    (tmp_path / "Beta" / ".lock").touch()
    assert open_pool(tmp_path).unfinished == ()
    (tmp_path / "Beta" / ".work").mkdir()
    assert open_pool(tmp_path).unfinished == ("Beta",)


@pytest.mark.parametrize(("old", "new"), [('"related": []', '"related": ["Beta"]'), ('"roc_auc"', '"accuracy"')])
def test_a_changed_card_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = write_pool(tmp_path, ("Alpha", "Beta")) / "Alpha" / cards.FILE_NAME
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ShardError, match=r"Alpha/task.json: changed since it was written; convert"):
        open_pool(tmp_path)


def test_a_shard_of_another_size_or_none_is_refused(tmp_path: Path) -> None:
    write_pool(tmp_path)
    shard = tmp_path / "Alpha" / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(ShardError, match=r"train-000001.tar: changed since it was written; expected \d+ bytes"):
        open_pool(tmp_path)
    shard.unlink()
    with pytest.raises(ShardError, match=r"train-000001.tar: missing"):
        open_pool(tmp_path)


def test_a_changed_index_is_refused(tmp_path: Path) -> None:
    write_pool(tmp_path, ("Alpha",))
    index = tmp_path / "Alpha" / cards.INDEX_NAME
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    with pytest.raises(ShardError, match=r"index.parquet: the index has changed since it was written; convert"):
        open_pool(tmp_path)


@pytest.mark.parametrize("what", ["text", "columns"])
def test_an_index_that_is_none_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    """Whatever its card says of it: another program may have written both."""
    write_pool(tmp_path, ("Alpha",))
    index = tmp_path / "Alpha" / cards.INDEX_NAME
    if what == "text":
        index.write_bytes(b"x" * 100)
    else:
        pq.write_table(pa.table({"key": ["a"]}), index)
    card = json.loads((tmp_path / "Alpha" / cards.FILE_NAME).read_bytes())
    data = index.read_bytes()
    card["index"] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del card["card"]
    (tmp_path / "Alpha" / cards.FILE_NAME).write_bytes(cards.dump(cards.TaskCard.model_validate(card)))
    with pytest.raises(ShardError, match=r"index.parquet: unreadable index") as caught:
        open_pool(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    write_task(tmp_path / "Alpha", sizes={"train": 6, "test": 3})
    (task,) = open_pool(tmp_path).tasks
    assert len(task.rows["val"]) == 0
    assert task.rows["val"].label.dtype == np.int64


def test_val_trains_beside_train_and_is_not_offered_again(tmp_path: Path) -> None:
    pool = open_pool(write_pool(tmp_path, ("Alpha", "Beta")))
    found = training_on(pool, ("train", "val"), but=("beta",))
    alpha, beta = found.tasks
    assert [*pool.tasks[0].rows["train"].key, *pool.tasks[0].rows["val"].key] == list(alpha.rows["train"].key)
    assert (alpha.trains, len(alpha.rows["train"]), len(alpha.rows["val"])) == (("train", "val"), 32, 0)
    assert (beta.trains, len(beta.rows["train"]), len(beta.rows["val"])) == (("train",), 24, 8)
    digests = {training_on(pool, ("train", "val"), but=but).digest for but in ((), ("Alpha",), ("Beta",))}
    assert len(digests | {pool.digest}) == 4
    assert training_on(pool, ("train",)) is pool
    with pytest.raises(UsageError, match="no task 'Gamma' in the pool"):
        training_on(pool, ("train", "val"), but=("Gamma",))


def test_the_protocol_names_every_step_that_reads_test_sets() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "protocol.md").read_text()
    assert all(f"`{step}`" in page for permit in Permit for step in permit.value.split(", ") if "mtrain " in step)
    assert "`mtrain.ShardDataset(..., open_test=True)`" in page

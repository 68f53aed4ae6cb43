import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mtrain.data import addresses, shard_cache, storage
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import TrainingBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import batches
from mtrain.data.pool import Pool, open_pool
from mtrain.data.sampling import Stream
from mtrain.data.task import Permit, Task, open_task, with_test
from mtrain.errors import RunError, ShardError, UsageError
from mtrain.model.network import shared_network
from mtrain.transfers.features import features
from tests.mtrain.pools import write_pool
from tests.mtrain.storages import BUCKET, KEYS, Faults, proxy, s3_server, upload, web_server
from tests.mtrain.test_fit import SMALL, Notes

PREFIX = f"s3://{BUCKET}/pool"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("remote") / "shards", ("Alpha", "Beta"))


@pytest.fixture(scope="module")
def moto(local: Path) -> Iterator[int]:
    with s3_server() as port:
        upload(port, local, "pool")
        yield port


@pytest.fixture
def faults(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """S3 behind the proxy, as the environment tells the libraries."""
    plan = Faults()
    with proxy(moto, plan) as port:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
            monkeypatch.setenv(name, value)
        yield plan


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(shard_cache.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(shard_cache.CACHE_SIZE, "1GB")
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    storage.file_system.cache_clear()
    return tmp_path / "cache" / "shards"


def some_batches(pool: Pool, workers: int = 0) -> list[Batch]:
    images = Images([(task, task.rows["train"]) for task in pool.tasks])
    return list(batches(TrainingBatches(images, 24, 3, range(8), Stream.TRAIN), range(3), workers=workers))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def first_shard(place: str = f"{PREFIX}/Alpha") -> shard_cache.Copy:
    copy = open_task(place).files()[0]
    assert isinstance(copy, shard_cache.Copy)
    return copy


def tars(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_a_pool_on_s3_gives_the_batches_of_the_same_pool_on_disk(local: Path, faults: Faults, cache: Path) -> None:
    here, there = open_pool(local), open_pool(PREFIX)
    assert there.digest == here.digest
    assert not cache.exists()  # opening fetches no shard
    assert equal(some_batches(here), some_batches(there, workers=2))
    fetched = [task.card.shards for task in there.tasks]
    wanted = {f"{shard.sha256}.tar" for shards in fetched for shard in shards if shard.split == "train"}
    assert set(tars(cache)) == wanted  # and no shard that was not asked for


def test_features_show_the_progress_of_what_they_fetch_and_of_nothing_else(faults: Faults, tmp_path: Path) -> None:
    (task, _), notes = open_pool(PREFIX).tasks, Notes()
    network = shared_network(SMALL, "random")
    for size in (32, 33, 33):  # the first time, with shards that are here, with features that are here
        features(network, task, "train", size=size, cache=tmp_path / "features", workers=0, report=notes, device="cpu")
    computed = ("Alpha: features of train", 24)
    assert notes.bars == [("downloading shards", 3), computed, computed]


def test_shards_that_are_here_are_not_fetched_again(faults: Faults) -> None:
    some_batches(open_pool(PREFIX))
    asked = len(faults.asked)
    some_batches(open_pool(PREFIX))
    assert len(faults.asked) == asked > 0


def test_the_test_set_needs_its_permit_there_too(faults: Faults) -> None:
    (task, _) = open_pool(PREFIX).tasks
    assert set(task.rows) == {"train", "val"}
    opened = with_test(task, Permit.EVALUATE)
    assert Images([(opened, opened.rows["test"])]).decode(7).shape[2] == 3


def test_answers_that_fail_break_off_or_dawdle_are_queried_again(faults: Faults) -> None:
    faults.planned, faults.slow_seconds = ["fail", "cut", "fail", "cut", "slow"], 0.05
    copy = first_shard()
    assert hashlib.sha256(copy.ensure().read_bytes()).hexdigest() == copy.sha256
    assert faults.planned == []


def test_a_storage_that_keeps_failing_is_reported_in_one_line(
    faults: Faults, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "TRIES", 2)
    faults.planned = ["fail"] * 200
    with pytest.raises(
        RunError, match=rf"^{PREFIX}/Alpha/train-000000.tar: cannot be read: .*; check the net"
    ) as caught:
        first_shard().ensure()
    assert "\n" not in str(caught.value)
    assert tars(cache) == []


def test_an_answer_that_never_comes_is_reported_in_one_line(
    faults: Faults, monkeypatch: pytest.MonkeyPatch, local: Path
) -> None:
    monkeypatch.setattr(storage, "TRIES", 2)
    monkeypatch.setattr(storage, "READ_SECONDS", 0.2)
    faults.planned, faults.slow_seconds = ["slow"] * 3, 1.0
    with web_server(local) as server, proxy(server, faults) as port:
        copy = first_shard(f"http://127.0.0.1:{port}/Alpha")
        with pytest.raises(RunError, match=r"train-000000.tar: no response in time; check the network"):
            copy.ensure()


def test_bytes_that_are_not_those_of_the_card_get_no_name(local: Path, moto: int, faults: Faults, cache: Path) -> None:
    data = bytearray((local / "Alpha" / "train-000000.tar").read_bytes())
    data[700] ^= 1
    other = local.parent / "changed"
    if not other.exists():
        write_pool(other, ("Alpha",))
    (other / "Alpha" / "train-000000.tar").write_bytes(data)
    upload(moto, other, "changed")
    copy = first_shard(f"s3://{BUCKET}/changed/Alpha")
    with pytest.raises(ShardError, match=r"train-000000.tar: not the shard that task.json describes; expected sha256"):
        copy.ensure()
    assert tars(cache) == []


def test_what_was_used_longest_ago_makes_room(faults: Faults, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (copy for copy in open_task(f"{PREFIX}/Alpha").files()[:3] if isinstance(copy, shard_cache.Copy))
    monkeypatch.setenv(shard_cache.CACHE_SIZE, str(one.size + two.size + three.size - 1))
    one.ensure()
    two.ensure()
    os.utime(two.path, (0, 0))
    one.ensure()
    three.ensure()
    assert tars(cache) == sorted([one.path.name, three.path.name])
    assert sum(path.stat().st_size for path in cache.glob("*.tar")) <= shard_cache.cache_bound()


def test_a_shard_that_had_to_go_is_fetched_again_when_it_is_read(faults: Faults, cache: Path) -> None:
    (task, _) = open_pool(PREFIX).tasks
    images = Images([(task, task.rows["train"])])
    before = images.read(0)
    images._files.close()
    for path in cache.glob("*.tar"):
        path.unlink()
    assert images.read(0) == before


def test_more_than_the_cache_may_hold_is_refused_at_once(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shard_cache.CACHE_SIZE, "20KB")
    with pytest.raises(
        UsageError, match=r"do not fit into the cache; expected at most 0.0 MB; found 0.\d MB; increase --cache-size"
    ):
        some_batches(open_pool(PREFIX))
    assert faults.asked == []


def fetching(copy: shard_cache.Copy) -> subprocess.Popen[bytes]:
    """Another process that fetches a shard."""
    given = f"{copy.url!r}, Path({str(copy.path)!r}), {copy.size}, {copy.sha256!r}"
    code = f"from pathlib import Path; from mtrain.data.shard_cache import Copy; Copy({given}).ensure()"
    return subprocess.Popen([sys.executable, "-c", code])


def test_two_processes_that_need_a_shard_fetch_it_once(faults: Faults) -> None:
    faults.planned, faults.slow_seconds = ["slow"], 0.5
    copy = first_shard()
    processes = [fetching(copy) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(faults.asked) == 1


def test_a_kill_while_fetching_leaves_nothing_under_its_name(faults: Faults, cache: Path) -> None:
    copy = first_shard()
    faults.planned, faults.slow_seconds = ["slow"], 60.0
    process = fetching(copy)
    for _ in range(600):
        if faults.asked:
            break
        time.sleep(0.05)
    assert len(list(cache.glob(f".*.partial/{copy.path.name}"))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not copy.path.exists()
    faults.slow_seconds = 0.0
    assert hashlib.sha256(copy.ensure().read_bytes()).hexdigest() == copy.sha256
    assert tars(cache) == [copy.path.name]
    assert list(cache.glob(".*.partial")) == []


def test_a_task_without_its_card_is_unfinished(local: Path, moto: int, faults: Faults) -> None:
    upload(moto, local / "Alpha" / "..", "broken")
    upload(moto, local.parent / "shards" / "Alpha", "broken/NoCard/inner")
    with pytest.raises(ShardError, match=rf"^s3://{BUCKET}/broken/NoCard: no task.json; finish the conversion"):
        open_pool(f"s3://{BUCKET}/broken")


def test_an_empty_place_and_a_missing_bucket_hold_no_task(faults: Faults) -> None:
    with pytest.raises(
        UsageError, match=rf"^s3://{BUCKET}/nothing: no task at this address; expected folders of tasks"
    ):
        open_pool(f"s3://{BUCKET}/nothing/")
    with pytest.raises(UsageError, match=r"^s3://no-such-bucket/x: no task at this address"):
        open_pool("s3://no-such-bucket/x")


def test_a_shard_that_is_not_there_is_named(local: Path, faults: Faults) -> None:
    copy = first_shard()
    gone = shard_cache.Copy(copy.url.replace("train-000000", "train-999999"), copy.path, copy.size, copy.sha256)
    with pytest.raises(RunError, match=rf"^{PREFIX}/Alpha/train-999999.tar: no such file; check the address"):
        gone.ensure()


def test_access_that_is_refused_is_reported_with_where_credentials_come_from(faults: Faults) -> None:
    copy = first_shard()
    faults.planned = ["deny"] * 5
    with pytest.raises(RunError, match=r"train-000000.tar: access denied; set up credentials as for the `aws`") as told:
        copy.ensure()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(told.value)
    assert len(faults.planned) >= 3  # no patience with that


def test_no_credentials_are_reported_without_asking_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"s3://bucket/x: no credentials found; set up credentials as for the `aws`"):
        open_pool("s3://bucket/x")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_missing_extra_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("no")

    monkeypatch.setattr(storage.fsspec, "filesystem", missing)
    extra = {"s3": "s3", "gs": "gcs"}[scheme]
    with pytest.raises(UsageError, match=rf"{scheme}:// needs packages.*; pip install 'dpconvert\[{extra}\]'"):
        open_pool(f"{scheme}://bucket/x")


def test_a_web_server_tells_its_tasks_in_a_file(local: Path, cache: Path) -> None:
    (local / "tasks.json").write_text(json.dumps(["Beta", "Alpha"]))
    with web_server(local) as port:
        pool = open_pool(f"http://127.0.0.1:{port}/")
        assert [task.name for task in pool.tasks] == ["Alpha", "Beta"]
        assert equal(some_batches(pool), some_batches(open_pool(local)))
    (local / "tasks.json").unlink()


def test_the_address_of_one_task_is_a_pool_of_one(local: Path) -> None:
    with web_server(local) as port:
        assert [task.name for task in open_pool(f"http://127.0.0.1:{port}/Beta").tasks] == ["Beta"]
        with pytest.raises(
            UsageError, match=r"no task at this address; expected tasks.json \(a list of task names\), or task.json"
        ):
            open_pool(f"http://127.0.0.1:{port}")


def test_a_web_answer_that_breaks_off_is_gone_on_with(local: Path, faults: Faults) -> None:
    with web_server(local) as server, proxy(server, faults) as port:
        copy = first_shard(f"http://127.0.0.1:{port}/Alpha")
        faults.planned = ["cut", "fail", "cut"]
        assert hashlib.sha256(copy.ensure().read_bytes()).hexdigest() == copy.sha256
        assert len(faults.asked) == 4


@pytest.mark.parametrize("names", ['["../x"]', "{", '"Alpha"', "[1]"])
def test_a_list_of_tasks_that_is_none_is_refused(tmp_path: Path, names: str) -> None:
    (tmp_path / "tasks.json").write_text(names)
    with web_server(tmp_path) as port, pytest.raises(ShardError, match=r"tasks.json: not a list of task names"):
        open_pool(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["s3://user:pass@bucket/x", "https://user:pass@host/x", "https://host/x?token=pass", "https:/u:pass@h/x"]
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError, match=r"may not contain a user, password or query") as caught:
        open_pool(address)
    assert "pass@" not in str(caught.value)
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../evil.tar", "/etc/passwd", "a/b.tar"])
def test_a_card_cannot_lead_out_of_its_folder(name: str) -> None:
    with pytest.raises(ShardError, match="invalid file name"):
        shard_cache.shard_copy("s3://bucket/Alpha", name, 1, "0" * 64)
    with pytest.raises(ShardError, match="not a sha256"):
        shard_cache.shard_copy("s3://bucket/Alpha", "a.tar", 1, "../../evil")


@pytest.mark.parametrize(
    ("text", "size"), [("500GB", 500 * 10**9), ("1.5 TB", 15 * 10**11), ("20kb", 20_000), ("7", 7), ("2g", 2 * 10**9)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert shard_cache.parse_size(text) == size


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not a size; expected a size such as 500GB; found lots"):
        shard_cache.parse_size("lots")


def test_pathlib_may_have_folded_an_address() -> None:
    assert addresses.url_of(Path("s3://bucket/pool/")) == "s3://bucket/pool"
    assert addresses.url_of("https://host/a/Task") == "https://host/a/Task"
    assert addresses.url_of("shards") is None
    assert addresses.absolute(Path("gs://b/x")) == "gs://b/x"
    assert addresses.absolute("shards") == str(Path("shards").absolute())


def test_a_task_says_where_it_comes_from(faults: Faults) -> None:
    task: Task = open_task(f"{PREFIX}/Alpha")
    assert task.url == f"{PREFIX}/Alpha"
    assert task.folder.name.startswith("Alpha-")

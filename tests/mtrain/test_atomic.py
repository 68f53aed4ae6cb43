"""Files that are whole or absent: what a killed process leaves goes, and what a running one writes stays."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from mtrain.disk.atomic import locked, replacing, write_json, writing
from mtrain.errors import RunError
from mtrain.model.weight_files import tensor_file
from mtrain.train import checkpoint

HANGING = """
import sys, time
from pathlib import Path
from mtrain.disk.atomic import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print("begun", flush=True)
    time.sleep(600)
"""


def hanging(path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing `path`."""
    process = subprocess.Popen([sys.executable, "-c", HANGING, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_what_a_killed_process_left_goes_with_the_next_file_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    killed, running = (hanging(tmp_path / name) for name in ("killed.json", "running.json"))
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(list(tmp_path.iterdir())) == 2
        write_json(tmp_path / "other.json", {})
        assert sorted(path.name for path in tmp_path.glob("*/*")) == ["running.json"]
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("name", [f".{socket.gethostname()}x.1.abc.partial", ".old.json.partial"])
def test_of_other_machines_and_versions_what_is_a_day_old_goes(tmp_path: Path, name: str) -> None:
    left = tmp_path / name
    left.touch()
    write_json(tmp_path / "one.json", {})
    assert left.exists()
    os.utime(left, (0, time.time() - 90_000))
    write_json(tmp_path / "two.json", {})
    assert not left.exists()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
        assert one.read_text() == "one"
    assert (tmp_path / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room and run the command again"),
        (errno.EROFS, "write to another folder"),
        (errno.EACCES, "write to another folder"),
    ],
)
def test_room_is_requested_only_where_it_helps(tmp_path: Path, number: int, remedy: str) -> None:
    with pytest.raises(RunError, match=f"cannot be written: .*; {remedy}$"), writing(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_checkpoint_leaves_nothing_half_written_beside_it(tmp_path: Path) -> None:
    """Nobody else writes there, so it need not ask whose it is; also what a library began under a name of its own."""
    left = tmp_path / f".{socket.gethostname()}.{os.getpid()}.abc.partial"
    left.mkdir()
    (left / ".tmp123").touch()
    checkpoint.save(tmp_path, 7, {"a": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["iteration-00000007.safetensors"]


def test_a_folder_whose_name_is_not_in_utf_8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Neither TensorBoard nor safetensors could open a file there."""
    folder = tmp_path / os.fsdecode(b"M\xfcller") / "run"
    with pytest.raises(RunError, match="the path is not in UTF-8; choose or rename"), locked(folder, "", ""):
        pass
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "cannot be written: No space left on device; make room and run the command again"),
        (errno.EROFS, "cannot be written: Read-only file system; write to another folder"),
    ],
)
def test_weights_that_cannot_be_written_are_reported_as_other_files_are(
    number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    monkeypatch.setattr(tensor_file, "save_file", failing)
    with pytest.raises(RunError, match=f"w.safetensors: {re.escape(said)}$"):
        tensor_file.write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {})

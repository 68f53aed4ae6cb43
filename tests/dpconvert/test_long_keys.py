"""Keys of samples whose names are long."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from dpconvert.manifest.catalog import load
from dpconvert.readers import with_defaults
from tests.dpconvert.conftest import run


def test_a_sample_with_a_long_name_has_one_key_with_and_without_its_mask(tmp_path: Path) -> None:
    (tmp_path / "source/images").mkdir(parents=True)
    (tmp_path / "source/masks").mkdir()
    names = [f"{first}{'a' * 80}{number}.png" for first in "xy" for number in (1, 2)]  # alike but for their beginning
    for number, name in enumerate(names):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / "source/images" / name)
        Image.fromarray(np.full((32, 32), number % 2, np.uint8)).save(tmp_path / "source/masks" / name)
    (tmp_path / "m.toml").write_text(
        'task = "T"\nshape = "masks"\nclasses = ["no", "yes"]\n[layout]\nvalues = {0 = "no", 1 = "yes"}\n'
        '[dense]\noptional = true\n[dense.seg]\nclasses = ["no", "yes"]\n'
        '[rule]\ntype = "area"\nsize = 32\npositive = ["yes"]\nshare = 0.5\n[split.strict]\nshare = [1, 0, 0]\n'
    )
    manifest = with_defaults(load(tmp_path / "m.toml"))
    keys = []
    for dense in (False, True):
        folder = (
            tmp_path / f"out{dense}" / run(manifest, tmp_path / "source", tmp_path / f"out{dense}", dense=dense).task
        )
        with tarfile.open(folder / "train-000000.tar") as tar:
            members = tar.getmembers()
        assert {len(member.name.encode()) > 100 or bool(member.pax_headers) for member in members} == {False}
        keys.append({member.name.partition(".")[0] for member in members})
    assert keys[0] == keys[1]
    assert len(keys[0]) == 4

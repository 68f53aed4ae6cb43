"""Every parser of mtrain of bytes that come from elsewhere: images and shards of others, weights, runs, sweeps."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from dpconvert.image.decode import decode
from mtrain.data import streamed_samples
from mtrain.errors import ShardError
from mtrain.model import heads
from mtrain.model.weight_files.weights import read_weights, state_digest
from mtrain.runs.run_folder import Run
from mtrain.sweep.cell_records import Planned
from mtrain.sweep.combination import Combination
from mtrain.sweep.spec import load_sweep
from mtrain.sweep.store import Store
from mtrain.train import checkpoint
from mtrain.transfers.transfer import read_result
from tests.fuzz.targets import IMAGE, JPEG, JSON, PNG, SHARD, TAR, Target, in_file

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
HEADER = (b'{"', b'"F32"', b'"data_offsets":[0,', b"[" * 2000, b"\xff" * 8, b"\0" * 8, *JSON)
PICKLE = (
    b"cos\nsystem\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"R",
    b"b",
    b"\x81",
    b"\x85",
    b"PK\x01\x02",
    b"\x80\x02",
)
TOML = (b"[", b"nan", b"1e999", b"[fit]\n", b"seeds = []\n", b"[[", b"= -1", b"= '" + b"x" * 99 + b"'")
SWEEP = b'shards = "s"\nleave_out = [["Lung"]]\nseeds = [0]\n[grid]\nlr = [1e-3]\ntau = [5]\n[fit]\nsize = 32\n'
CELL = json.dumps(
    {
        "cell": "c",
        "run": "r",
        "combination": {"backbone": "b", "lr": 0.1, "tau": 1.0, "warmup": False},
        "seed": 0,
        "state": "scored",
        "scores": {"Lung svm": {"metric": "accuracy", "set": "val", "score": 0.5}},
        "seconds": 1.0,
    }
).encode()
SCORED = json.dumps(
    {
        "identity": {},
        "task": "T",
        "mode": "svm",
        "weights": "run",
        "metric": "accuracy",
        "set": "val",
        "score": 0.5,
        "notes": [],
    }
).encode()
RUN = json.dumps({"config": {"shards": "s"}, "left_out": ["Lung"]}).encode()
STATE = json.dumps({"state": "running", "iteration": 7}).encode()
EVENTS = b'{"event": "train", "iteration": 1, "loss": 0.5}\n{"event": "validate", "iteration": 2}\n'


def _safetensors(about: dict[str, Any]) -> bytes:
    return save(TENSORS, {"about": json.dumps(about)})


def _pickled(*, zipped: bool) -> bytes:
    """A `.pth` file; what the older form calls its tensors, their places in memory, are numbers here."""
    buffer = io.BytesIO()
    torch.save({"state_dict": TENSORS}, buffer, _use_new_zipfile_serialization=zipped)
    data = buffer.getvalue()
    for number, place in enumerate([] if zipped else dict.fromkeys(re.findall(rb"\d{12,}", data))):
        data = data.replace(place, b"%0*d" % (len(place), number))
    return data


ABOUT = {
    "task": "T",
    "title": "",
    "classes": ["x", "y"],
    "metric": "accuracy",
    "side": 0,
    "mpp": None,
    "licence": {},
    "citation": "",
    "digest": "",
    "samples": {},
}
HEADS = save({"T.weight": torch.zeros(2, 3), "T.bias": torch.zeros(2)}, {"about": json.dumps({"tasks": {"T": ABOUT}})})


def _decoded(data: bytes) -> object:
    """As a loader reads an image, which makes an error with its name of these."""
    try:
        return decode(data)
    except (ValueError, OSError) as error:
        raise ShardError(str(error)) from None


def _streamed(path: Path) -> object:
    """A shard, which its card describes rightly, read again and again."""
    shard = streamed_samples.Shard(str(path), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    return list(
        itertools.islice(streamed_samples.samples(streamed_samples.StreamedTask("T", 2, [shard], 1), 1, "0"), 3)
    )


def _cell(path: Path) -> object:
    planned = Planned(cell=path.stem, combination=Combination("b", 0.1, 1.0, warmup=False), seed=0, tasks=("T",))
    return Store(path.parent.parent).results([planned])


def _run(path: Path) -> object:
    run = Run(path.parent)
    return run.state(), run.events(), run.config(), run.left_out()


TARGETS: dict[str, Target] = {
    "decode": Target(_decoded, [PNG, JPEG], IMAGE),
    "stream": Target(in_file("a.tar", _streamed), [SHARD], TAR),
    "weights": Target(in_file("a.safetensors", read_weights), [_safetensors({"backbone": "b"})], HEADER),
    "pickled-weights": Target(in_file("a.pth", read_weights), [_pickled(zipped=z) for z in (True, False)], PICKLE),
    "checkpoint": Target(
        in_file("a.safetensors", checkpoint.load),
        [_safetensors({"iteration": 1, "digest": state_digest(TENSORS)})],
        HEADER,
    ),
    "heads": Target(in_file("heads.safetensors", heads.load_heads), [HEADS], HEADER),
    "run": Target(in_file("config.json", _run), [RUN], JSON),
    "state": Target(in_file("state.json", lambda path: Run(path.parent).state()), [STATE], JSON),
    "events": Target(in_file("log.jsonl", lambda path: Run(path.parent).events()), [EVENTS], JSON),
    "sweep": Target(in_file("s.toml", lambda path: load_sweep(str(path))), [SWEEP], TOML),
    "cell": Target(in_file("cells/c.json", _cell), [CELL], JSON),
    "transfer-result": Target(in_file("r.json", read_result), [SCORED], JSON),
}
BYTE_LEVEL = ("decode", "stream", "pickled-weights")

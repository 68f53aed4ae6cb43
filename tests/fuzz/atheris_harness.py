"""The process that atheris fuzzes one parser in: `python -m tests.fuzz.atheris_harness PARSER [-runs=N] [FOLDER]`.

Started by tests.fuzz.guided. What reads bytes here is instrumented, the libraries that it reads them by included.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

READERS = [
    "dpconvert",
    "PIL",
    "zipfile",
    "tarfile",
    "tifffile",
    "webdataset",
    "dpconvert.image.decode",
    "mtrain.data.streamed_samples",
    "mtrain.model.weight_files.weights",
    "torch._weights_only_unpickler",
    "torch.serialization",
]

with atheris.instrument_imports(include=READERS):
    from dpconvert.errors import UserError
    from tests.fuzz.spoiling import target_of

    target = target_of(sys.argv.pop(1))


def one(data: bytes) -> None:
    """What libFuzzer calls."""
    with suppress(UserError):
        target.parse(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

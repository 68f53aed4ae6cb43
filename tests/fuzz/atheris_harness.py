"""Coverage-guided fuzzing of one parser: `python -m tests.fuzz.atheris_harness TARGET [-runs=N] [FOLDER]`.

What crashes is written into the working folder by libFuzzer; mended, it belongs into seeds/TARGET/.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["dpconvert", "PIL", "zipfile", "tarfile", "tifffile"]):
    from dpconvert.errors import UserError
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run libFuzzer on the target that is named."""
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        with suppress(UserError):
            target.parse(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

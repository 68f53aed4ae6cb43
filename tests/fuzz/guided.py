"""Coverage-guided fuzzing of one parser by atheris (libFuzzer), in a process of its own: what it came to, in a line."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from tests.fuzz.spoiling import ROOT, FaultError, target_of
from tests.fuzz.targets import MEMORY

LONGEST = 1 << 15  # bytes of an input
MIB, SECONDS = 3000, 60  # of one input
STATUS = re.compile(r"#(\d+)\s+(?:\w+)\s+cov: (\d+)")


def run(name: str, inputs: int, seed: str, seconds: int = 0) -> str:
    """At least so many inputs, and so long.

    Raises:
        FaultError: an exception that is not ours, too much time or memory, or a dead process.
    """
    begun, made, covered = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        corpus, found = Path(folder) / "corpus", Path(folder) / "found"
        corpus.mkdir()
        found.mkdir()
        for number, data in enumerate(target_of(name).seeds):
            (corpus / str(number)).write_bytes(data)
        while made < inputs or time.monotonic() - begun < seconds:
            more = _run_once(name, corpus, found, max(inputs - made, inputs // 10), f"{seed} {made}")
            made, covered = made + more[0], more[1]
        size = sum(1 for _ in corpus.iterdir())
    return f"{made} inputs, {time.monotonic() - begun:.0f} s, {covered} branches covered, {size} inputs kept for them"


def _run_once(name: str, corpus: Path, found: Path, inputs: int, seed: str) -> tuple[int, int]:
    """(inputs, coverage) of one process of the fuzzer, whose corpus grows."""
    options = [
        f"-runs={inputs}",
        f"-seed={zlib.crc32(seed.encode()) or 1}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MIB}",
        f"-timeout={SECONDS}",
        f"-artifact_prefix={found}/",
    ]
    command = [sys.executable, "-m", "tests.fuzz.atheris_harness", name, *options, str(corpus)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode:
        kept = sorted(found.iterdir())
        told = f"{name}: exit status {done.returncode}: {done.stderr[-2000:]}"
        raise FaultError(told, kept[0].read_bytes() if kept else b"")
    made, covered = STATUS.findall(done.stderr)[-1]
    return int(made), int(covered)

"""Images a second up to normalized 224 x 224 float batches on the CPU: ours, and four other loaders, in one run.

    python benchmarks/loader/compare.py                    ours, webdataset, ImageFolder
    python benchmarks/loader/compare.py --peers PYTHON     litdata and mosaicml-streaming too, by another interpreter
    python benchmarks/loader/compare.py --images DIR     on images of one's own: DIR/<task>/<class>/*.jpg

4 400 JPEGs of 150 to 512 px in four tasks of unequal size are drawn, task by task with equal chance, in batches of 64.
Everyone takes a random square, resizes it with antialiasing, flips and normalizes. webdataset reads the shards that
ours reads (RandomMix, a shuffle buffer, PIL); ImageFolder has a WeightedRandomSampler; litdata and mosaicml-streaming
read their own formats, with the stored bytes in them, and decode as they do by themselves. Below, ours as it leaves the
worker processes (uint8, before the device resizes them) beside JPEG decoding and nothing else of the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loaders import COUNTED, PEERS, TASKS, WARM, WAYS, bare


def draw(folder: Path) -> None:
    """Smooth noise in the colours of a stain."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for task, images in TASKS.items():
        for number in range(images):
            width, height = random.integers(150, 513, 2)
            coarse = random.normal(size=(height // 16 + 2, width // 16 + 2, 3)) * [25, 45, 20] + [205, 150, 190]
            smooth = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            pixels = np.asarray(smooth).astype(np.int16) + random.normal(0, 6, (height, width, 1)).astype(np.int16)
            path = folder / task / "ab"[number % 2] / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def one(way: str, data: Path, workers: int) -> None:
    """Run one way in this process; its rate as a line."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if way == "bare":
        rate = bare(data, workers)
    else:
        made = iter(WAYS[way](data, workers))
        for _ in range(WARM):
            next(made)
        begun, images = time.perf_counter(), 0
        for _ in range(COUNTED):
            batch = next(made)
            images += len(getattr(batch, "labels", batch))
        rate = images / (time.perf_counter() - begun)
    sys.stdout.write(json.dumps(rate) + "\n")
    sys.stdout.flush()
    os._exit(0)  # some leave processes behind that an orderly end would wait for


def prepare(data: Path, images: Path | None, peers: str | None) -> None:
    """Images, our shards, and the peers' formats."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from generated import MANIFEST  # which needs dpconvert; the peers' interpreter runs this file too

    if images is None:
        draw(data / "pictures")
    else:
        (data / "pictures").symlink_to(images.absolute())
    for task in sorted((data / "pictures").iterdir()):
        manifest = data / f"{task.name}.toml"
        manifest.write_text(MANIFEST.format(task=task.name, split=""))
        convert = [
            sys.executable,
            "-m",
            "dpconvert.cli",
            str(manifest),
            "--source",
            str(task),
            "--out",
            str(data / "shards"),
        ]
        subprocess.run([*convert, "-q"], check=True, stdout=subprocess.DEVNULL)
    for name in PEERS if peers else ():
        subprocess.run([str(peers), __file__, "--write", name, str(data)], check=True, capture_output=True)


def measure(python: str, way: str, data: Path, workers: int, rounds: int) -> float:
    """The fastest of some rounds, each in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [python, __file__, "--one", way, str(data), str(workers)]
    found = []
    for _ in range(rounds):
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        if process.returncode:
            sys.exit(f"{way}: {process.stderr}")
        found.append(float(process.stdout.splitlines()[-1]))
    return max(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peers", metavar="PYTHON", help="an interpreter that has litdata and mosaicml-streaming")
    options.add_argument(
        "--images", metavar="DIR", type=Path, help="<task>/<a or b>/<number>.jpg instead of drawn ones"
    )
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--only", nargs="+", metavar="WAY", help="some of the lines")
    options.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    options.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.one:
        one(args.one[0], Path(args.one[1]), int(args.one[2]))
    if args.write:
        PEERS[args.write[0]](Path(args.write[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        prepare(data, args.images, args.peers)
        sys.stdout.write(
            f"{'':22}"
            + "".join(f"{n} worker{'s' * (n > 1)}".rjust(12) + f"{'ours is':>10}" for n in args.workers)
            + "\n"
        )
        first: dict[int, float] = {}
        for way in [*WAYS, "bare"]:
            python = args.peers if way in PEERS else sys.executable
            if python is None or way not in (args.only or [way]):
                continue
            first = {} if way == "ours, uint8" else first
            line = f"{way:22}"
            for workers in args.workers:
                rate = measure(python, way, data, workers, args.rounds)
                line += f"{rate:>12.0f}{first.setdefault(workers, rate) / rate:>9.2f}x"
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

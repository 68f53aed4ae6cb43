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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

SIZE, BATCH, WARM, COUNTED = 224, 64, 6, 150
TASKS = {"Large": 2400, "Middle": 1200, "Small": 600, "Tiny": 200}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


class Square:
    """A random square of a PIL image, as large as it can be."""

    def __call__(self, image: Any) -> Any:
        import random

        side = min(image.size)
        left, top = (random.randint(0, length - side) for length in image.size)
        return image.crop((left, top, left + side, top + side))


def pil_transform() -> Any:
    """What everybody writes with torchvision and PIL."""
    from torchvision import transforms as t

    return t.Compose(
        [
            Square(),
            t.Resize((SIZE, SIZE)),
            t.RandomHorizontalFlip(),
            t.RandomVerticalFlip(),
            t.ToTensor(),
            t.Normalize(MEAN, STD),
        ]
    )


class TensorTransform:
    """The same for images that come as uint8 tensors (3, h, w)."""

    def __init__(self) -> None:
        from torchvision.transforms import v2 as t

        self.steps = t.Compose(
            [t.Resize((SIZE, SIZE), antialias=True), t.RandomHorizontalFlip(), t.RandomVerticalFlip()]
        )

    def __call__(self, image: Any) -> Any:
        import random

        import torch

        side = min(image.shape[-2:])
        top, left = (random.randint(0, length - side) for length in image.shape[-2:])
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        return self.steps(image[:, top : top + side, left : left + side]).float().div_(255).sub_(mean).div_(std)


def ours_uint8(data: Path, workers: int) -> Iterator[Any]:
    """What leaves the worker processes."""
    from mtrain.data.batches.image_batches import TrainingBatches
    from mtrain.data.batches.images import Images
    from mtrain.data.batches.loader import batches
    from mtrain.data.pool import open_pool
    from mtrain.data.sampling import Stream

    images = Images([(task, task.rows["train"]) for task in open_pool(data / "shards").tasks])
    dataset = TrainingBatches(images, SIZE, 0, range(BATCH), Stream.TRAIN)
    return batches(dataset, range(WARM + COUNTED), workers=workers, lasting=1)


def ours(data: Path, workers: int) -> Iterator[Any]:
    """With resizing, flips and normalization, which are the device's part, here on the CPU."""
    import torch

    from mtrain.data.batches.augment import normalize

    room = torch.empty((BATCH, 3, SIZE, SIZE), memory_format=torch.channels_last)
    for batch in ours_uint8(data, workers):
        yield normalize(batch.images(SIZE), MEAN, STD, out=room)


def webdataset(data: Path, workers: int) -> Iterator[Any]:
    """Stock: RandomMix of a shuffled stream a task, PIL."""
    import webdataset as wds

    transform = pil_transform()
    streams = [
        wds.WebDataset([str(path) for path in sorted(task.glob("train-*.tar"))], resampled=True, empty_check=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(transform, int)
        for task in sorted((data / "shards").iterdir())
    ]
    mixed = wds.DataPipeline(wds.RandomMix(streams), wds.batched(BATCH))
    return (images for images, _ in wds.WebLoader(mixed, batch_size=None, num_workers=workers))


def imagefolder(data: Path, workers: int) -> Iterator[Any]:
    """Stock: a WeightedRandomSampler that makes the tasks equally likely."""
    from torch.utils.data import DataLoader, WeightedRandomSampler
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(data / "pictures", pil_transform())
    counts = [folder.targets.count(task) for task in range(len(folder.classes))]
    sampler = WeightedRandomSampler([1 / counts[task] for task in folder.targets], BATCH * (WARM + COUNTED))
    return (images for images, _ in DataLoader(folder, BATCH, sampler=sampler, num_workers=workers))


def litdata(data: Path, workers: int) -> Iterator[Any]:
    """Its chunks, decoded by itself through torchvision; CombinedStreamingDataset with equal weights."""
    from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset

    class Images(StreamingDataset):
        transform_image = TensorTransform()

        def __getitem__(self, index: Any) -> Any:
            return self.transform_image(super().__getitem__(index)["image"])

    parts = [Images(str(task), shuffle=True) for task in sorted((data / "litdata").iterdir())]
    mixed = CombinedStreamingDataset(parts, weights=[1 / len(parts)] * len(parts), iterate_over_all=False)
    while True:
        yield from StreamingDataLoader(mixed, batch_size=BATCH, num_workers=workers, drop_last=True)


def streaming(data: Path, workers: int) -> Iterator[Any]:
    """mosaicml-streaming: MDS, streams of equal proportion, PIL as it decodes by itself."""
    from streaming import Stream, StreamingDataset
    from torch.utils.data import DataLoader

    class Images(StreamingDataset):
        transform_image = pil_transform()

        def __getitem__(self, index: Any) -> Any:
            return self.transform_image(super().__getitem__(index)["image"])

    folders = sorted((data / "mds").iterdir())
    streams = [Stream(local=str(folder), proportion=1 / len(folders)) for folder in folders]
    mixed = Images(streams=streams, shuffle=True, batch_size=BATCH, epoch_size=BATCH * (WARM + COUNTED) * 2)
    while True:
        yield from DataLoader(mixed, BATCH, num_workers=workers, drop_last=True)


def write_litdata(data: Path) -> None:
    """Each task into litdata's chunks; a JPEG file keeps its bytes."""
    import litdata as lit

    for task in sorted((data / "pictures").iterdir()):
        files = [str(path) for path in sorted(task.rglob("*.jpg"))]
        lit.optimize(_opened, files, output_dir=str(data / "litdata" / task.name), chunk_bytes="64MB", num_workers=1)


def _opened(path: str) -> dict[str, Any]:
    from PIL import Image

    return {"image": Image.open(path)}


def write_mds(data: Path) -> None:
    """Each task into MDS; a JPEG file keeps its bytes."""
    from PIL import Image
    from streaming import MDSWriter

    for task in sorted((data / "pictures").iterdir()):
        with MDSWriter(out=str(data / "mds" / task.name), columns={"image": "jpeg"}) as writer:
            for path in sorted(task.rglob("*.jpg")):
                writer.write({"image": Image.open(path)})


def _decode_all(images: list[bytes], seconds: float) -> float:
    import imagecodecs

    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for image in images[done % len(images) :][:64]:
            imagecodecs.jpeg8_decode(image, outcolorspace="RGB")
            done += 1
    return done / (time.perf_counter() - begun)


def bare(data: Path, workers: int) -> float:
    """JPEG decoding in as many processes, of images drawn as ours are; a second."""
    import multiprocessing
    import random

    draws = random.Random(0)
    tasks = [sorted(task.rglob("*.jpg")) for task in sorted((data / "pictures").iterdir())]
    images = [draws.choice(draws.choice(tasks)).read_bytes() for _ in range(1024)]
    with multiprocessing.get_context("fork").Pool(workers) as processes:
        return sum(processes.starmap(_decode_all, [(images, 4.0)] * workers, chunksize=1))


WAYS: dict[str, Callable[[Path, int], Iterable[Any]]] = {
    "ours": ours,
    "webdataset": webdataset,
    "ImageFolder": imagefolder,
    "litdata": litdata,
    "mosaicml-streaming": streaming,
    "ours, uint8": ours_uint8,
}
PEERS = {"litdata": write_litdata, "mosaicml-streaming": write_mds}


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

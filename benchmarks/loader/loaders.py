"""The loaders that compare.py compares: each yields batches of 64 normalized images, from shards or its own format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

SIZE, BATCH, WARM, COUNTED = 224, 64, 6, 150
TASKS = {"Large": 2400, "Middle": 1200, "Small": 600, "Tiny": 200}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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

"""A finished run's network with its head for one task: images in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mtrain.data.batches.augment import CENTRE, put_square, resized_if_needed, room_for_squares
from mtrain.data.labels import Scaling
from mtrain.errors import RunError, UsageError
from mtrain.model.devices import find_device
from mtrain.model.heads import About, load_heads
from mtrain.model.inference import Inference, InParts
from mtrain.model.network import shared_network
from mtrain.model.recorded_network import repeated
from mtrain.runs.belonging import check_weights
from mtrain.runs.run_folder import Run, trained_task

BATCH = 64


class Classifier:
    """Predicts the probabilities of a task's classes for images.

    Raises:
        RunError: the run is not finished.
        UsageError: it has no head for this task, or several heads and no task is given.
    """

    def __init__(self, run: Run, task: str | None, device: str = "auto") -> None:
        heads = load_heads(run.heads)
        if task is None and len(heads) > 1:
            raise UsageError(
                "this run has several heads", where=run.path, remedy=f"choose one with --task: {', '.join(heads)}"
            )
        head = heads[trained_task(heads, task or next(iter(heads)), run.path)]
        if not run.weights.is_file():
            raise RunError(
                "this run is not finished: it has no weights", where=run.path, remedy="resume it with `mtrain fit`"
            )
        check_weights(run)
        self.about: About = head.about
        self.size = run.config().size
        self.device = find_device(device)
        self.network = shared_network(run.network(), run.weights).eval().to(self.device)
        self.inference = Inference.on(self.device)
        features = repeated(lambda images: self.network(self.network.normalize(images)), self.inference)
        self.run = InParts(features, self.inference)
        self.head = head.module().to(self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.about.classes

    def label(self, name: str | None) -> int | None:
        """The number of a class. Without a name: 1 if there are two classes, else None.

        Raises:
            UsageError: there is no such class.
        """
        if self.about.target == "value" and name is not None:
            raise UsageError(f"{self.about.task} has numbers and no classes", found=f"--class {name}")
        if name is None:
            return 1 if len(self.classes) == 2 else None
        if name not in self.classes:
            raise UsageError(
                f"no class {name!r} of {self.about.task}", remedy=f"choose one of: {', '.join(self.classes)}"
            )
        return self.classes.index(name)

    def answer(self, raw_images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities (N, classes) for N uint8 RGB images (height, width, 3); numbers in their unit (N, 1)."""
        return self.probabilities(self.features(raw_images))

    def features(self, raw_images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features (N, D) of N uint8 RGB images (height, width, 3).

        As in training, the central square of each image is resized to the network's input size. They are computed as
        those of `mtrain features` are (mtrain.model.inference).
        """
        how, size, sides = self.network.interpolation, self.size, list[int]()
        room, used = np.empty(room_for_squares(len(raw_images), size), np.uint8), 0
        for image in raw_images:
            sides.append(put_square(np.array(image), size, CENTRE, room[used:], how))
            used += 3 * sides[-1] ** 2
        pixels = torch.from_numpy(room[:used]).to(self.device)
        features: NDArray[np.float32] = (
            self.run(resized_if_needed(pixels, torch.tensor(sides), size, how)).cpu().numpy()
        )
        return features

    @torch.inference_mode()
    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (N, classes) for features (N, D); numbers in the unit of the task (N, 1), if it has those."""
        logits = self.head(torch.from_numpy(features).to(self.device)).float()
        if self.about.target == "value":
            outputs = logits.cpu().numpy().astype(np.float64)
            return (self.about.scaling or Scaling()).in_unit(outputs).astype(np.float32)
        of_labels = self.about.target == "labels"
        probabilities: NDArray[np.float32] = (
            (torch.sigmoid(logits) if of_labels else torch.softmax(logits, dim=1)).cpu().numpy()
        )
        return probabilities

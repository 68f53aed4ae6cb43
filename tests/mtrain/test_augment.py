from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from mtrain.data.batches import augment
from mtrain.data.batches.augment import CENTRE, LARGEST, flip, normalize, put_square, resized, room_for_squares, square

RAMP = torch.arange(5, dtype=torch.uint8).expand(3, 2, 5)  # 2 high, 5 wide; the value is the column
LAST = 2**32 - 1


@pytest.mark.parametrize(("place", "first"), [(0, 0), (CENTRE, 2), (LAST, 3), (2**30 - 1, 0), (2**30, 1)])
def test_a_landscape_image_is_cropped_along_its_width(place: int, first: int) -> None:
    assert square(RAMP, 2, place)[0].tolist() == [[first, first + 1]] * 2


def test_a_portrait_image_is_cropped_along_its_height() -> None:
    portrait = RAMP.transpose(1, 2)
    assert square(portrait, 2, LAST)[0].tolist() == [[3, 3], [4, 4]]


def test_a_square_image_of_the_right_size_is_left_alone() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert torch.equal(square(image, 8, LAST), image)


def test_resizing_is_antialiased_as_pillow_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((20, 20), Image.Resampling.BILINEAR)).astype(int)
    found = square(torch.from_numpy(pixels).permute(2, 0, 1), 20).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).max() <= 1


def test_each_image_is_flipped_as_its_row_says() -> None:
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(3, 2, 2)
    flips = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    found = flip(image.expand(4, 3, 2, 2), flips)[:, 0].tolist()
    assert found == [[[1, 2], [3, 4]], [[2, 1], [4, 3]], [[3, 4], [1, 2]], [[4, 3], [2, 1]]]


def test_normalization_is_that_of_imagenet() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    expected = [(0.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1.0 - 0.406) / 0.225]
    assert normalize(images).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_channels_last_stays_channels_last() -> None:
    images = torch.zeros((2, 3, 4, 4), dtype=torch.uint8).to(memory_format=torch.channels_last)
    done = normalize(flip(images, torch.ones((2, 2), dtype=torch.bool)))
    assert done.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1)])
def test_the_layout_in_memory_changes_no_number(shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (6, 3, *shape), dtype=torch.uint8)
    last, flips = images.to(memory_format=torch.channels_last), torch.randint(0, 2, (6, 2)).bool()
    assert torch.equal(flip(images, flips), flip(last, flips))
    assert torch.equal(normalize(images), normalize(last))
    room = torch.empty(last.shape, memory_format=torch.channels_last)
    assert normalize(last, out=room) is room
    assert torch.equal(room, normalize(images))


@pytest.mark.parametrize("shape", [(300, 260), (260, 300), (100, 150), (224, 301)])
def test_images_are_resized_alike_however_they_lie_in_memory(shape: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    room = torch.empty(room_for_squares(1, 224), dtype=torch.uint8)
    sides = torch.tensor([put_square(last.permute(1, 2, 0).numpy(), 224, 2**30, room.numpy())])
    assert torch.equal(resized(room, sides, 224)[0], square(image, 224, 2**30))


def batch_of(images: list[torch.Tensor], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Their squares one after the other, and the sides of these."""
    room, sides, used = torch.empty(room_for_squares(len(images), size), dtype=torch.uint8), [], 0
    for image in images:
        sides.append(put_square(image.permute(1, 2, 0).numpy(), size, CENTRE, room.numpy()[used:]))
        used += 3 * sides[-1] ** 2
    return room, torch.tensor(sides)


SIDES = (40, 40, 16, 33, 24, 24, 24, 7)


def smooth(side: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5) * 255, size=(side, side), mode="bicubic")[0].byte()


def test_squares_of_all_sizes_are_resized_and_flipped_as_one_alone() -> None:
    images, flips = [smooth(side) for side in SIDES], torch.rand(len(SIDES), 2) < 0.5
    found = resized(*batch_of(images, 24), 24, flips)
    expected = flip(torch.stack([square(image, 24) for image in images]), flips)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 96), min_size=1, max_size=5), st.integers(1, 48), st.integers(0, 2**31))
def test_a_device_resizes_all_squares_at_once_as_interpolate_does_each(
    dtype: torch.dtype, sides: list[int], size: int, seed: int
) -> None:
    """Within one level of 255, since both round once but add in another order, in float16 as CUDA does."""
    generator = torch.Generator().manual_seed(seed)
    squares = [torch.randint(256, (side, side, 3), generator=generator, dtype=torch.uint8) for side in sides]
    pixels = torch.cat([square.flatten() for square in squares] + [torch.full((5,), 255, dtype=torch.uint8)])
    found = augment.resized_at_once(pixels, torch.tensor(sides), size, max(sides), dtype=dtype)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for image, pixels in zip(found, squares, strict=True):
        floats = pixels.permute(2, 0, 1)[None].float()
        expected = F.interpolate(floats, size=(size, size), mode="bilinear", antialias=True)[0].round()
        assert (image.int() - expected.int()).abs().max() <= 1
        assert len(pixels) != size or torch.equal(image, pixels.permute(2, 0, 1))


def test_a_device_resizes_to_the_pixels_of_the_processor_but_for_one_rounding() -> None:
    pixels, sides = batch_of([smooth(side) for side in SIDES], 24)
    found = augment.resized_at_once(pixels, sides, 24, int(sides.max())).int()
    difference = (found - resized(pixels, sides, 24).int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.2


def test_a_device_takes_squares_of_the_right_size_as_they_are() -> None:
    """On the meta device, whose tensors know where they lie in memory but not their values."""
    pixels, sides = batch_of([smooth(24) for _ in range(3)], 24)
    there = pixels.to("meta")
    with mock.patch.object(augment, "resized_at_once", side_effect=AssertionError):
        found = augment.resized_if_needed(there, sides, 24)
    assert (found.shape, found._base is there) == ((3, 3, 24, 24), True)
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = torch.as_strided(pixels, found.shape, found.stride(), found.storage_offset())
    assert torch.equal(expected, resized(pixels, sides, 24))


def test_a_square_much_larger_than_the_size_is_resized_before_it_travels() -> None:
    _, sides = batch_of([smooth(LARGEST * 24), smooth(LARGEST * 24 + 1)], 24)
    assert sides.tolist() == [LARGEST * 24, 24]

import numpy as np
import pytest
import torch
from PIL import Image

from mtrain.augment import CENTRE, flip, normalize, square, square_into

RAMP = torch.arange(5, dtype=torch.uint8).expand(3, 2, 5)  # 2 high, 5 wide; the value is the column
LAST = 2**32 - 1


@pytest.mark.parametrize(("place", "first"), [(0, 0), (CENTRE, 2), (LAST, 3), (2**30 - 1, 0), (2**30, 1)])
def test_a_landscape_picture_is_cropped_along_its_width(place: int, first: int) -> None:
    assert square(RAMP, 2, place)[0].tolist() == [[first, first + 1]] * 2


def test_a_portrait_picture_is_cropped_along_its_height() -> None:
    portrait = RAMP.transpose(1, 2)
    assert square(portrait, 2, LAST)[0].tolist() == [[3, 3], [4, 4]]


def test_a_square_picture_of_the_right_size_is_left_alone() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert torch.equal(square(image, 8, LAST), image)


def test_resizing_is_antialiased_as_pillow_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((20, 20), Image.Resampling.BILINEAR)).astype(int)
    found = square(torch.from_numpy(pixels).permute(2, 0, 1), 20).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).max() <= 1


def test_each_picture_is_flipped_as_its_row_says() -> None:
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
def test_pictures_are_resized_alike_however_they_lie_in_memory(shape: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    found = torch.empty((1, 3, 224, 224), dtype=torch.uint8, memory_format=torch.channels_last)[0]
    square_into(found, last, 2**30)
    assert torch.equal(found, square(image, 224, 2**30))

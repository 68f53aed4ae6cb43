import colorsys

import numpy as np
import pytest
import torch

from mtrain.data.batches.colour import colour_jitter, quarter_turn, stain_jitter

HALF = 0.5  # the middle of 0..1: no change


def draw_images(count: int = 3, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def test_the_middle_amounts_change_nothing() -> None:
    images = draw_images()
    assert (stain_jitter(images, torch.full((3, 6), HALF), 0.3).int() - images.int()).abs().max() <= 1
    assert (colour_jitter(images, torch.full((3, 4), HALF), 0.3).int() - images.int()).abs().max() <= 1


def test_a_stain_is_scaled_in_its_own_direction() -> None:
    """Pure haematoxylin of density 0.5, scaled by 1.2, is pure haematoxylin of density 0.6."""
    direction = torch.tensor([0.65, 0.70, 0.29])
    direction /= direction.norm()
    before, after = (torch.exp(-density * direction) * 255 for density in (0.5, 0.6))
    images = before.round().to(torch.uint8)[None, :, None, None].expand(1, 3, 4, 4)
    amounts = torch.full((1, 6), HALF)
    amounts[0, 0] = 1.0  # 1 + strength
    found = stain_jitter(images, amounts, 0.2)[0, :, 0, 0].float()
    assert (found - after).abs().max() <= 1.5


def test_a_shift_adds_density_of_one_stain_to_white() -> None:
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    amounts = torch.full((1, 6), HALF)
    amounts[0, 3] = 1.0  # the shift of eosin: + 0.2
    direction = torch.tensor([0.07, 0.99, 0.11])
    direction /= direction.norm()
    expected = torch.exp(-0.2 * direction) * 255
    assert (stain_jitter(images, amounts, 0.2)[0, :, 0, 0].float() - expected).abs().max() <= 1


@pytest.mark.parametrize(("which", "expected"), [(0, (100, 50, 25)), (1, (200, 50, 0))])
def test_brightness_and_contrast_by_hand(which: int, expected: tuple[int, int, int]) -> None:
    """(200, 100, 50) at half the brightness; a colour about its grey at twice the contrast."""
    amounts = torch.full((1, 4), HALF)
    amounts[0, which] = 0.0 if which == 0 else 1.0
    strength = 0.5 if which == 0 else 1.0
    colour = (200, 100, 50) if which == 0 else (150, 75, 33)
    images = torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    grey = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    values = expected if which == 0 else tuple(min(max((c - grey) * 2 + grey, 0), 255) for c in colour)
    found = colour_jitter(images, amounts, strength)[0, :, 0, 0].float()
    assert (found - torch.tensor(values)).abs().max() <= 1


def test_no_saturation_is_grey() -> None:
    amounts = torch.full((3, 4), HALF)
    amounts[:, 2] = 0.0
    found = colour_jitter(draw_images(), amounts, 1.0).int()
    assert (found[:, 0] - found[:, 1]).abs().max() <= 1
    assert (found[:, 1] - found[:, 2]).abs().max() <= 1


def test_the_hue_turns_and_the_grey_stays() -> None:
    images = torch.tensor([150, 100, 110], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    amounts = torch.full((1, 4), HALF)
    amounts[0, 3] = 1.0
    red, green, blue = colour_jitter(images, amounts, 0.5)[0, :, 0, 0].tolist()
    assert 0.299 * red + 0.587 * green + 0.114 * blue == pytest.approx(0.299 * 150 + 58.7 + 0.114 * 110, abs=1)
    hue = [colorsys.rgb_to_hsv(*(c / 255 for c in colour))[0] for colour in ((150, 100, 110), (red, green, blue))]
    assert 0.08 < abs(hue[0] - hue[1]) % 1 < 0.92


def test_images_are_changed_each_by_its_own_amounts_and_keep_their_layout() -> None:
    images = draw_images(4, 6).to(memory_format=torch.channels_last)
    amounts = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    whole = stain_jitter(images, amounts, 0.2)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    for number in range(4):
        assert torch.equal(
            stain_jitter(images[number : number + 1], amounts[number : number + 1], 0.2)[0], whole[number]
        )


def test_turns_and_flips_make_all_eight_positions() -> None:
    from mtrain.data.batches.augment import flip

    image = draw_images(1)
    positions = set()
    for bits in range(8):
        turned = quarter_turn(image, torch.tensor([bool(bits & 4)]))
        flipped = flip(turned, torch.tensor([[bool(bits & 1), bool(bits & 2)]]))
        positions.add(flipped.numpy().tobytes())
    expected = {
        np.ascontiguousarray(np.rot90(side, k, axes=(2, 3))).tobytes()
        for side in (image.numpy(), image.numpy()[..., ::-1])
        for k in range(4)
    }
    assert positions == expected

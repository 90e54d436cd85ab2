"""Flips and crops of whole batches against a loop over single samples."""

import torch

from lth_lightning.data.augmentation import draw_choices, flip_crop, pad, unpadded


def one_sample(image: torch.Tensor, down: int, right: int, flipped: bool) -> torch.Tensor:
    """Crop one image out of its black border, pixel by pixel, then mirror it."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row, source_column = row + down - 4, column + right - 4
            if 0 <= source_row < height and 0 <= source_column < width:
                target = width - 1 - column if flipped else column
                result[:, row, target] = image[:, source_row, source_column]
    assert channels == result.shape[0]
    return result


def test_every_choice_is_its_own_crop_and_flip() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 7, 6), generator=generator).to(torch.uint8)
    index = torch.randint(0, 5, (162,), generator=generator)
    found = flip_crop(pad(images), index, torch.arange(162))
    assert found.dtype == torch.uint8
    place = 0
    for down in range(9):
        for right in range(9):
            for flipped in (False, True):
                expected = one_sample(images[index[place]], down, right, flipped)
                assert torch.equal(found[place], expected)
                place += 1


def test_choices_are_uniform_over_81_crops_and_two_flips() -> None:
    counts = torch.bincount(draw_choices(162_000, torch.Generator().manual_seed(0)), minlength=162)
    assert len(counts) == 162
    assert 840 < counts.min() < counts.max() < 1160  # 1,000 each: five standard deviations


def test_the_border_is_black_and_comes_off_again() -> None:
    images = torch.full((2, 1, 5, 5), 9, dtype=torch.uint8)
    padded = pad(images)
    assert padded.shape == (2, 1, 13, 13)
    assert int(padded.sum()) == int(images.sum())
    assert torch.equal(unpadded(padded), images)

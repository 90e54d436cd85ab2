"""What each normalization makes of pixels."""

from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision import transforms

from lth_lightning.data import CIFAR10, MNIST, Digits, MeanStd
from lth_lightning.data.normalization import Normalizer
from lth_lightning.errors import UserError

GRAY = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
COLOR = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8).repeat(5, 1, 1, 1)


def normalizer(normalization: Any, channels: int = 1) -> Normalizer:
    return Normalizer(normalization, channels, MeanStd([0.1307], [0.3081]), 255)


@pytest.mark.parametrize(
    ("normalization", "mean", "std"),
    [
        ("dataset", 0.1307, 0.3081),
        ("none", 0.0, 1.0),
        ("half", 0.5, 0.5),
        ("lecun", 0.078, 0.784),
        (MeanStd([0.2], [0.7]), 0.2, 0.7),
    ],
)
def test_pixels_are_divided_shifted_and_scaled_as_torchvision_does(normalization: Any, mean: float, std: float) -> None:
    tensors = [transforms.ToTensor()(image[0].numpy()) for image in GRAY]
    expected = torch.stack([transforms.Normalize([mean], [std])(tensor) for tensor in tensors])
    found = normalizer(normalization)(GRAY)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_raw_pixels_are_had_by_the_std_that_the_help_names() -> None:
    assert torch.allclose(normalizer(MeanStd([0], [0.00392156862745098]))(GRAY), GRAY.float(), rtol=1e-6, atol=0)


def test_each_channel_has_its_own_numbers() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    found = normalizer(MeanStd(mean, std), 3)(COLOR)
    for channel in range(3):
        expected = (COLOR[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(found[:, channel].double(), expected, rtol=1e-5, atol=1e-6)


def test_one_number_serves_every_channel() -> None:
    assert torch.equal(normalizer(MeanStd([0.5], [0.5]), 3)(COLOR), normalizer(MeanStd([0.5] * 3, [0.5] * 3), 3)(COLOR))


def test_unit_l2_gives_every_image_norm_one_and_its_own_direction() -> None:
    found = normalizer("unit_l2", 3)(COLOR)
    assert torch.allclose(found.flatten(1).norm(dim=1), torch.ones(5), atol=1e-6)
    assert torch.allclose(found[0] * COLOR[0].float().norm(), COLOR[0].float(), atol=1e-3)


def test_unit_l2_leaves_a_black_image_black() -> None:
    assert normalizer("unit_l2")(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)).abs().sum() == 0


def test_raw_pixels_are_not_written_to() -> None:
    before = GRAY.clone()
    normalizer("dataset")(GRAY)
    assert torch.equal(GRAY, before)


@pytest.mark.parametrize(
    "wrong",
    [
        "datset",
        {"mean": [0.5], "std": [0.5]},
        MeanStd([0.5, 0.5], [0.5]),
        MeanStd([0.5], [0.5, 0.5]),
        MeanStd([], [0.5]),
        MeanStd([0.5], [0.0]),
        MeanStd([0.5], [float("nan")]),
    ],
)
def test_a_wrong_normalization_is_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(UserError) as error:
        CIFAR10(normalization=wrong)
    assert "\n" not in str(error.value)


def test_digits_are_sixteenths() -> None:
    data = Digits(normalization="none")
    data.setup("fit")
    (images, _), *_ = data.test_dataloader()
    assert torch.equal(images, data.test.images.float() / 16)
    assert images.max() == 1


@pytest.mark.parametrize("cls", [MNIST, CIFAR10, Digits])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unit_l2", "unit_l2"),
        ("{mean: [0.25], std: [0.5]}", MeanStd([0.25], [0.5])),
        ('{"mean": [0.25], "std": [0.5]}', MeanStd([0.25], [0.5])),
    ],
)
def test_normalization_is_read_from_flags_and_from_yaml_and_written_back(
    cls: type, text: str, expected: Any, tmp_path: Any
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(cls, "data")
    (tmp_path / "config.yaml").write_text(f"data:\n  normalization: {text}\n")
    from_flag = parser.parse_args([f"--data.normalization={text}"])
    from_file = parser.parse_args(["--config", str(tmp_path / "config.yaml")])
    (tmp_path / "again.yaml").write_text(parser.dump(from_flag))
    again = parser.parse_args(["--config", str(tmp_path / "again.yaml")])
    wanted = cls(normalization=expected).normalize.mean_std
    for config in (from_flag, from_file, again):
        assert parser.instantiate(config).data.normalize.mean_std == wanted


def test_mean_and_std_can_be_flags_of_their_own() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CIFAR10, "data")
    config = parser.parse_args(["--data.normalization.mean=[0.1,0.2,0.3]", "--data.normalization.std=[0.5]"])
    assert parser.instantiate(config).data.normalize.mean_std == MeanStd([0.1, 0.2, 0.3], [0.5])

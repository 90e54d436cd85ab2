"""The linear layer by oneDNN is the linear layer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lth_lightning import kernels
from lth_lightning.kernels import SMALL, Linear

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch has no such kernel",
)


def layers(out: int = 300, features: int = 784) -> tuple[nn.Linear, Linear]:
    torch.manual_seed(0)
    plain, ours = nn.Linear(features, out), Linear(features, out)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN taken for the faster, whatever this processor is; the shapes of what it multiplies."""
    seen = []
    product = kernels._product

    def counted(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        seen.append((*left.shape, right.shape[0]))
        return product(left, right, bias)

    monkeypatch.setattr(kernels, "is_onednn_faster", lambda: True)
    monkeypatch.setattr(kernels, "_product", counted)
    return seen


@needs_onednn
def test_values_and_gradients_are_those_of_nn_linear(calls: list[tuple[int, ...]]) -> None:
    plain, ours = layers()
    assert 60 * plain.weight.numel() >= SMALL
    results = []
    for layer in (plain, ours):
        images = torch.randn(60, 784, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out = layer(images)
        out.square().sum().backward()
        results.append((out, layer.weight.grad, layer.bias.grad, images.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert calls == [(60, 784, 300), (60, 300, 784), (300, 60, 784)]


@needs_onednn
def test_the_first_layers_images_get_no_gradient(calls: list[tuple[int, ...]]) -> None:
    _, ours = layers()
    ours(torch.randn(60, 784)).sum().backward()
    assert len(calls) == 2


@needs_onednn
def test_the_same_inputs_give_the_same_bits(calls: list[tuple[int, ...]]) -> None:
    _, ours = layers()
    images = torch.randn(60, 784)
    assert torch.equal(ours(images), ours(images))


@needs_onednn
def test_it_can_be_differentiated_twice(calls: list[tuple[int, ...]]) -> None:
    plain, ours = layers()
    results = []
    for layer in (plain, ours):
        images = torch.randn(60, 784, generator=torch.Generator().manual_seed(1))
        (first,) = torch.autograd.grad(layer(images).pow(3).mean(), layer.weight, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), layer.weight)
        results.append(second)
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", ["float64", "small", "three dimensions", "no bias", "autocast"])
def test_what_it_was_not_measured_for_is_left_to_torch(calls: list[tuple[int, ...]], case: str) -> None:
    plain, ours = layers(10 if case == "small" else 300)
    images = torch.randn(*((2, 30) if case == "three dimensions" else (60,)), 784)
    if case == "float64":
        plain, ours, images = plain.double(), ours.double(), images.double()
    if case == "no bias":
        plain.bias = ours.bias = None
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert torch.equal(ours(images), plain(images))
    assert calls == []


@pytest.mark.parametrize(("vendor", "faster"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)])
def test_onednn_is_taken_on_amds_processors(monkeypatch: pytest.MonkeyPatch, vendor: str | None, faster: bool) -> None:
    def read(path: Path) -> str:
        assert str(path) == "/proc/cpuinfo"
        if vendor is None:
            raise FileNotFoundError
        return f"processor : 0\nvendor_id : {vendor}\n"

    monkeypatch.setattr(Path, "read_text", read)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert kernels.is_onednn_faster.__wrapped__() == (faster and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def test_a_layer_is_an_nn_linear_to_whoever_looks() -> None:
    plain, ours = layers()
    assert isinstance(ours, nn.Linear)
    assert repr(ours) == repr(plain)
    assert list(ours.state_dict()) == list(plain.state_dict())


@needs_onednn
@pytest.mark.parametrize("tool", ["func", "forward mode", "trace", "script"])
def test_torchs_other_ways_to_differentiate_and_export_work(calls: list[tuple[int, ...]], tool: str) -> None:
    plain, ours = layers()
    images = torch.randn(60, 784, generator=torch.Generator().manual_seed(1))

    def through(layer: nn.Linear) -> torch.Tensor:
        if tool == "func":

            def loss(weight: torch.Tensor) -> torch.Tensor:
                return torch.func.functional_call(layer, {"weight": weight}, (images,)).square().mean()

            return torch.func.grad(loss)(layer.weight.detach())
        if tool == "forward mode":
            return torch.func.jvp(layer, (images,), (torch.ones_like(images),))[1]
        exported = torch.jit.trace(layer, images) if tool == "trace" else torch.jit.script(layer)
        return exported(images)

    torch.testing.assert_close(through(ours), through(plain), rtol=1e-4, atol=1e-5)


@needs_onednn
def test_sizes_that_do_not_fit_are_told_by_torch(calls: list[tuple[int, ...]]) -> None:
    plain, ours = layers()
    wrong = torch.randn(60, 700)
    with pytest.raises(RuntimeError) as expected:
        plain(wrong)
    with pytest.raises(RuntimeError) as found:
        ours(wrong)
    assert str(found.value) == str(expected.value)
    assert calls == []

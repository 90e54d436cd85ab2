"""Which weights an evaluation is of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lth_lightning.pruning.rewind import dense_parts

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Evaluated:
    """Tells whether a network still has the bits that it had at the first batch of its last evaluation.

    A callback may put other weights into the network for an evaluation alone, or change them after the last one.
    """

    def __init__(self) -> None:
        self._parameters: list[int] | None = None
        self._buffers: list[int] = []

    def begin(self) -> None:
        """An evaluation begins; it may have no batch."""
        self._parameters = None

    def first_batch(self, model: nn.Module) -> None:
        """The first batch of an evaluation is due: it is of what `model` has now."""
        parameters, buffers = _tensors(model)
        # One transfer for both.
        found = _fingerprint([*parameters, *buffers])
        split = sum(len(dense_parts(value)) for value in parameters)
        self._parameters, self._buffers = found[:split], found[split:]

    def are_parameters_of(self, model: nn.Module) -> bool:
        """Whether the evaluation was of the parameters that `model` has. It may have changed buffers, such as counts.

        Also where it had no batch.
        """
        return self._parameters is None or self._parameters == _fingerprint(_tensors(model)[0])

    def is_of(self, model: nn.Module) -> bool:
        """Whether the evaluation was of the parameters and buffers that `model` has; also where it had no batch."""
        if self._parameters is None:
            return True
        parameters, buffers = _tensors(model)
        return _fingerprint([*parameters, *buffers]) == [*self._parameters, *self._buffers]


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """All parameters and all buffers, in one walk; one that two layers share comes twice."""
    parameters: list[Tensor] = []
    buffers: list[Tensor] = []
    for module in model.modules():
        parameters += [value for value in module._parameters.values() if value is not None]
        buffers += [value for value in module._buffers.values() if value is not None]
    return parameters, buffers


def _fingerprint(tensors: Sequence[Tensor]) -> list[int]:
    """A number for each tensor, or part of a sparse one, the sum of its bits: equal on every device where they are."""
    sums = [_sum(part) for value in tensors for part in dense_parts(value)]
    return torch.stack([number.to(sums[0].device) for number in sums]).tolist() if sums else []


def _sum(value: Tensor) -> Tensor:
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    if value.is_floating_point():
        value = value.view(_INTEGERS[value.element_size()])
    # A sum of 32 bits may pass their range, and begins again below: it takes a third of the time of one of 64.
    return value.sum(dtype=torch.int32) if value.dtype is torch.int32 else value.sum()

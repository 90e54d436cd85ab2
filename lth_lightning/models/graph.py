"""A training step as a CUDA graph: Python and the launches of its kernels are paid once, not at every step.

After "Whole-network capture" in torch's notes on CUDA semantics.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

# Of whoever captures: lazy initialization, cuBLAS workspaces and the optimizer's state must be there before. Torch's
# notes take three.
WARM_UPS = 3


def can_capture(optimizer: Optimizer) -> str | None:
    """None where steps of `optimizer` can be captured, otherwise one phrase that says why not."""
    if type(optimizer) not in (Adam, AdamW, SGD):
        return f"{type(optimizer).__name__} is none of Adam, AdamW and SGD"
    for group in optimizer.param_groups:
        # The other implementations keep their step counts on the CPU or read the rate from there.
        if not group["fused"]:
            return f"{type(optimizer).__name__} is not fused"
        if isinstance(group["lr"], Tensor):
            return "its learning rate is a tensor"
    return None


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where every step of this process is warmed up and captured: cuBLAS keeps a workspace for each stream it saw."""
    return torch.cuda.Stream(device)


class CapturedStep:
    """Calls `step` itself the first three times, then captures it, and from then on replays what was captured.

    The first calls are steps like any other: nothing has to be put back. Each call does exactly one step. Hooks of
    the optimizer, such as a MaskKeeper's, are captured with it: what they do on the device is replayed, their Python
    is not run again. They must neither be removed nor get another mask while steps are replayed.

    The learning rate may change from step to step; on the device it is a float32, captured or not. Where another
    setting (momentum, weight decay) is not what was captured, the step is run, not replayed.

    Args:
        step: a whole step on static tensors: zero_grad, forward, backward, `optimizer.step()`. It must not wait for
            the device or draw random numbers.
        optimizer: one that `can_capture` takes, its parameters on one CUDA device. Load its state before.
    """

    def __init__(self, step: Callable[[], None], optimizer: Optimizer) -> None:
        self._step = step
        self._optimizer = optimizer
        device = optimizer.param_groups[0]["params"][0].device
        self._stream = _side_stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm_ups = WARM_UPS
        self._rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._known_rates = [0.0 for _ in optimizer.param_groups]
        self._captured_settings: list[dict[str, Any]] = []

    def __call__(self) -> None:
        self._follow_rates()
        if self._graph is None and self._warm_ups == 0:
            self._capture()
        if self._graph is not None and self._settings() == self._captured_settings:
            self._graph.replay()
            return
        self._warm_ups = max(0, self._warm_ups - 1)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream), self._rates_on_device():
            self._step()
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def _follow_rates(self) -> None:
        for index, group in enumerate(self._optimizer.param_groups):
            if group["lr"] != self._known_rates[index]:
                self._known_rates[index] = group["lr"]
                self._rates[index].fill_(group["lr"])

    def _capture(self) -> None:
        self._optimizer.zero_grad()  # the gradients of the replays are made in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with self._rates_on_device(capturable=True), torch.cuda.graph(graph, stream=self._stream):
            self._step()
        self._graph = graph
        self._captured_settings = self._settings()

    def _settings(self) -> list[dict[str, Any]]:
        """Everything about the optimizer that a graph holds as a constant."""
        varying = ("params", "lr", "initial_lr")
        return [{k: v for k, v in group.items() if k not in varying} for group in self._optimizer.param_groups]

    @contextmanager
    def _rates_on_device(self, capturable: bool = False) -> Iterator[None]:
        """The rates as device tensors, for a step only: schedulers and checkpoints go on seeing floats."""
        groups = self._optimizer.param_groups
        before = [dict(group) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                # Fused, it changes no kernel: the state is on the device either way. Adam asks for it in a capture.
                group["capturable"] |= capturable
        try:
            yield
        finally:
            for group, kept in zip(groups, before, strict=True):
                group.update(kept)

"""Optimizers that are not torch's, or that move weights in ways of their own."""

from typing import Any

import torch
from torch.optim import SGD, Adam, Optimizer
from zoo_base import Data, Kind, Plain


class Lookahead(Optimizer):
    """Wraps another optimizer, and never calls `Optimizer.__init__` (as published code does)."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        self.param_groups = inner.param_groups
        self.state = inner.state
        self.defaults = inner.defaults
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        self.count = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.inner.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            for slow, p in zip(self.slow, (p for g in self.param_groups for p in g["params"]), strict=True):
                slow += 0.5 * (p - slow) + 1e-4
                p.copy_(slow)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {**self.inner.state_dict(), "slow": self.slow, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        slow, self.count = state.pop("slow", self.slow), state.pop("count", 0)
        self.slow = [value.clone() for value in slow]
        self.inner.load_state_dict(state)


class WithLookahead(Plain):
    def configure_optimizers(self) -> Any:
        return Lookahead(Adam(self.parameters(), lr=0.02))


class SAM(SGD):
    """Sharpness-aware minimization: two methods of its own move the weights there and back."""

    @torch.no_grad()
    def first_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["away"] = 0.05 * p.grad / (p.grad.norm() + 1e-12)
                p.add_(self.state[p]["away"])

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p]["away"])
                p.sub_(group["lr"] * p.grad)


class Sharp(Plain):
    """Steps by hand, by methods that no hook of an optimizer sees; a norm of the gradients as a clip takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        raw = optimizer.optimizer
        zeros = [layer.weight.detach() == 0 for layer in (self.stem, self.head)]
        for move in (raw.first_step, raw.second_step):
            loss = Plain.training_step(self, batch, batch_idx)
            raw.zero_grad()
            self.manual_backward(loss)
            move()
            for layer, pruned in zip((self.stem, self.head), zeros, strict=True):
                assert not layer.weight.detach()[pruned].any(), "revived within the batch"
        raw.zero_grad()
        optimizer.step()  # counts the step, and moves nothing
        return loss.detach()

    def configure_optimizers(self) -> Any:
        return SAM(self.parameters(), lr=0.1)


class WithLBFGS(Plain):
    """An optimizer that evaluates the network many times in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout.p = 0.0

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=5)


class Langevin(Adam):
    """Adds noise to every weight, with or without a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p), alpha=0.01)
        return loss


class WithNoise(Plain):
    def configure_optimizers(self) -> Any:
        return Langevin(self.parameters(), lr=0.02, weight_decay=0.1)


class TwoOptimizers(Plain):
    """Two steps of Lightning's counter in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            loss = Plain.training_step(self, batch, batch_idx)
            self.manual_backward(loss)
            optimizer.step()
        return loss.detach()

    def configure_optimizers(self) -> Any:
        own = [*self.head.parameters()]
        rest = [p for p in self.parameters() if all(p is not other for other in own)]
        return [Adam(rest, lr=0.02), SGD(own, lr=0.1, momentum=0.9)]


KINDS = [
    Kind("lookahead without init", model=WithLookahead),
    Kind("sharpness-aware steps", model=Sharp),
    Kind("LBFGS", model=WithLBFGS),
    Kind("noise on every weight", model=WithNoise),
    Kind("two optimizers", model=TwoOptimizers),
    Kind(
        "two optimizers, a step within a batch",
        model=TwoOptimizers,
        loop={"rewind_step": 3},
        refusal="2 optimizer steps a batch",
        trained=True,
    ),
    Kind("clipped by norm", data=Data, flags={"gradient_clip_val": 0.1}),
]

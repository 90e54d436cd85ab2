"""Networks of other layers, numbers and buffers than most, and networks beside the one that is trained."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from zoo_base import Kind, Plain


class WithMiddle(Plain):
    """A layer between stem and head, which stays the output."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        head = self.head
        del self.head
        self.mid = middle
        self.head = head


class Functional(Plain):
    """Uses a layer's weight by itself, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(functional.linear(x, self.stem.weight * self.scale, self.stem.bias)).relu())


class SharedTwice(WithMiddle):
    """One layer under two names, used twice."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(10, 10))
        self.again = self.mid

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.mid(self.norm(self.stem(x)).relu()).relu()))


class Collections(WithMiddle):
    """Layers in a list and a dictionary, and a weight in a ParameterList, which is no layer's."""

    def __init__(self) -> None:
        super().__init__(nn.ModuleList([nn.Linear(10, 10), nn.ModuleDict({"one": nn.Linear(10, 10)})]))
        self.others = nn.ParameterList([nn.Parameter(torch.randn(10, 10))])

    def forward(self, x: Tensor) -> Tensor:
        middle: Any = self.mid
        hidden = middle[0](self.norm(self.stem(x)).relu()).relu()
        return self.head(middle[1]["one"](hidden) @ self.others[0])


class ManyNumbers(WithMiddle):
    """Layers of 16 and 64 bits and of complex numbers; buffers that are complex, sparse, or truth values."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(10, 10, dtype=torch.complex64))
        self.stem.to(torch.bfloat16)
        self.head.double()
        self.register_buffer("turns", torch.polar(torch.ones(10), torch.arange(10.0)))
        self.register_buffer("graph", torch.eye(10).roll(1, 0).to_sparse())
        self.register_buffer("on", torch.arange(10) < 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.stem(x.to(torch.bfloat16)).float()).relu() * self.on
        hidden = torch.sparse.mm(self.graph, hidden.t()).t()
        return self.head(self.mid(hidden * self.turns).abs().double()).float()


class ManyConvolutions(Plain):
    """Depthwise, transposed, grouped and three-dimensional convolutions; all kinds of norms."""

    def __init__(self) -> None:
        super().__init__()
        del self.stem, self.norm, self.head
        self.first = nn.Conv1d(1, 4, 3, padding=1)
        self.depthwise = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.instance = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
        self.transposed = nn.ConvTranspose1d(4, 4, 2, groups=2)
        self.group = nn.GroupNorm(2, 4)
        self.volume = nn.Conv3d(1, 1, (1, 1, 3), padding=(0, 0, 1))
        self.layer = nn.LayerNorm(28)
        self.batch = nn.BatchNorm1d(28, momentum=None)
        self.head = nn.Linear(28, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.instance(self.depthwise(self.first(x[:, None]))).relu()
        hidden = self.group(self.transposed(hidden)).relu()
        hidden = self.volume(hidden[:, None, None])[:, 0, 0].flatten(1)
        return self.head(self.batch(self.layer(hidden)))


class Compiled(Plain):
    """A compiled part, whose names have `_orig_mod` in them."""

    def __init__(self) -> None:
        super().__init__()
        parts = (self.stem, self.norm, nn.ReLU(), self.head)
        del self.stem, self.norm, self.head
        self.net: Any = torch.compile(nn.Sequential(*parts), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Scripted(Plain):
    """A scripted part, whose layers torch hides."""

    def __init__(self) -> None:
        super().__init__()
        self.mid: Any = torch.jit.script(nn.Sequential(nn.Linear(10, 10), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mid(self.norm(self.stem(x))))


class WithTeacher(WithMiddle):
    """A slow copy of the stem, which no optimizer moves."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        head = self.head
        del self.head
        self.teacher = copy.deepcopy(self.stem).requires_grad_(False)
        self.head = head

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) + mse_loss(self.stem(batch[0]), self.teacher(batch[0]))

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for slow, fast in zip(self.teacher.parameters(), self.stem.parameters(), strict=True):
            slow.lerp_(fast, 0.1)


class WithAveragedModel(Plain):
    """Torch's own average of a network, which is evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(self.stem, self.norm, nn.ReLU(), self.head)
        del self.stem, self.norm, self.head
        # Not of one's own weights, which the average would take as they are the first time: zeros of another mask.
        self.average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.7))
        self.average.n_averaged += 1

    def forward(self, x: Tensor) -> Tensor:
        return (self.net if self.training else self.average)(x)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update_parameters(self.net)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), lr=0.02)


class AverageInABuffer(Plain):
    """An average of a weight that is a buffer, and that evaluations use."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", self.stem.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.stem.weight if self.training else self.average
        return self.head(self.norm(functional.linear(x, weight, self.stem.bias)).relu())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.lerp_(self.stem.weight.detach(), 0.3)


class AddsALayer(Plain):
    """Grows while it trains."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.late = nn.Linear(10, 10)


class ReplacesAWeight(Plain):
    """Puts another parameter in the place of one."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.stem.weight = nn.Parameter(self.stem.weight.detach() + 0.1)


class HalfAStateDict(Plain):
    """Saves the part that is trained alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem.requires_grad_(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if not k.startswith("stem")}


class OtherNamesInState(Plain):
    """A hook renames what is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(lambda _, state, *__: state.update({"x": state.pop("head.bias")}))


class SavesHalfBits(Plain):
    """A hook saves space."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(lambda _, state, *__: state.update({k: v.half() for k, v in state.items()}))


MIDDLE = ("stem.weight", "mid.weight", "head.weight")
COPIES = "Pruned and counted like other layers, though frozen or copies"
CONVOLUTIONS = ("first.weight", "depthwise.weight", "transposed.weight", "volume.weight", "head.weight")
AVERAGED = ("net.0.weight", "net.3.weight", "average.module.0.weight", "average.module.3.weight")
KINDS = [
    Kind("weights of layers used by themselves", model=Functional, thorough=True),
    Kind("a layer used twice", model=SharedTwice, prunable=MIDDLE, thorough=True),
    Kind(
        "layers in collections",
        model=Collections,
        prunable=("stem.weight", "mid.0.weight", "mid.1.one.weight", "head.weight"),
        told=r"100 weights \(others.0\)",
        thorough=True,
    ),
    Kind("numbers of many types", model=ManyNumbers, prunable=MIDDLE),
    Kind("many convolutions", model=ManyConvolutions, prunable=CONVOLUTIONS, thorough=True),
    Kind(
        "a compiled part", model=Compiled, prunable=("net._orig_mod.0.weight", "net._orig_mod.3.weight"), thorough=True
    ),
    Kind("a scripted part", model=Scripted, told=r"100 weights \(mid.0.weight\)", thorough=True),
    Kind(
        "a teacher",
        model=WithTeacher,
        prunable=("stem.weight", "teacher.weight", "head.weight"),
        told=f"{COPIES} of others at the start: teacher.weight",
        thorough=True,
    ),
    Kind("an averaged model", model=WithAveragedModel, prunable=AVERAGED, told=f"{COPIES}.*average.mod", thorough=True),
    Kind("an average in a buffer", model=AverageInABuffer, told="buffer average begins as a copy", thorough=True),
    Kind("a layer added in training", model=AddsALayer, refusal="'late.weight' was added", trained=True),
    Kind("a weight replaced in training", model=ReplacesAWeight, refusal="'stem.weight' was.*replaced", trained=True),
    Kind("half a state dict", model=HalfAStateDict, refusal="leaves out or renames 'stem.weight'"),
    Kind("other names in a state dict", model=OtherNamesInState, refusal="leaves out or renames 'head.bias'"),
    Kind("half the bits in a state dict", model=SavesHalfBits, refusal="changes 'stem.weight'"),
]

"""The promises on a CUDA device: zeros, rewinding, resuming. Run with `pytest -m gpu`."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lth_lightning import models
from lth_lightning.callbacks import Display, PruningLoop, RandomReinit
from lth_lightning.data import Digits
from lth_lightning.models import LeNet300
from lth_lightning.models.stack import Stack

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class Witness(pl.Callback):
    """Keeps the weights of the first batch, and whether pruned ones were ever not zero; stops where told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.first: list[dict[str, torch.Tensor]] = []
        self.worst = 0.0
        self.stop_at = stop_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        assert pl_module.device.type == "cuda"
        if batch_idx == 0:
            self.first.append({name: value.cpu().clone() for name, value in pl_module.state_dict().items()})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loop = next(callback for callback in trainer.callbacks if isinstance(callback, PruningLoop))
        parameters = dict(pl_module.named_parameters())
        for name, part in loop._mask.items():
            self.worst = max(self.worst, float((parameters[name].detach().cpu() * ~part.cpu()).abs().max()))
        if trainer.global_step == self.stop_at:
            raise RuntimeError("killed")


def go(logs: Path, witness: Witness, folder: Path | None = None, precision: str = "32-true") -> Path:
    loop = PruningLoop(levels=2, controls=[RandomReinit(levels=[1])], evaluate_every=20, checkpoint_every=40)
    loop.run(
        lambda training: pl.Trainer(
            max_steps=200, accelerator="cuda", devices=1, precision=precision, callbacks=[witness]
        ),
        lambda: LeNet300(shape=Digits.shape),
        Digits(),
        logs=logs,
        folder=folder,
        display=Display(enabled=False),
    )
    return logs / "run" / "version_0"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_pruned_weights_are_zero_and_survivors_are_rewound(tmp_path: Path, precision: str) -> None:
    witness = Witness()
    run = go(tmp_path, witness, precision=precision)
    assert witness.worst == 0.0
    rewind = torch.load(run / "replicate_0" / "rewind.pt")["weights"]
    for level, index in ((0, 0), (1, 1), (2, 3)):  # the control of level 1 is third
        mask = torch.load(run / "replicate_0" / "ticket" / f"level_{level:02d}" / "mask.pt")["mask"]
        for name, value in witness.first[index].items():
            assert torch.equal(value, rewind[name] * mask[name] if name in mask else rewind[name])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = go(tmp_path / "a", Witness())
    with pytest.raises(RuntimeError, match="killed"):
        go(tmp_path / "b", Witness(stop_at=120))
    part = go(tmp_path / "b", Witness(), folder=tmp_path / "b" / "run" / "version_0")
    for path in whole.rglob("metrics.csv"):
        assert path.read_bytes() == (part / path.relative_to(whole)).read_bytes()
    for path in whole.rglob("trained.pt"):
        ours, theirs = (torch.load(p)["weights"] for p in (path, part / path.relative_to(whole)))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Doubles(Digits):
    """In double precision, so that the order of sums matters little."""

    def __init__(self) -> None:
        super().__init__()
        normalize = self.normalize
        self.normalize = lambda images: normalize(images).double()  # type: ignore[assignment]


class Look(pl.Callback):
    """What a fit that makes several trainings ran on, and whether its steps were replayed."""

    def __init__(self) -> None:
        self.captured: list[tuple[int, bool]] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert pl_module.device.type == "cuda"
        self.captured.append((pl_module.net.members, pl_module._runner.captures))


def run(logs: Path, together: bool, make_model, data, callback: pl.Callback, precision: str = "32-true") -> Path:
    rates = {"conv": 0.3, "linear": 0.2, "output": 0.1}
    loop = PruningLoop(
        levels=2,
        rates=rates,
        replicates=2,
        controls=[RandomReinit()],
        evaluate_every=20,
        save_controls=True,
        together=together,
    )
    loop.run(
        lambda training: pl.Trainer(
            max_steps=70, accelerator="cuda", devices=1, precision=precision, callbacks=[callback]
        ),
        make_model,
        data,
        logs=logs,
        display=Display(enabled=False),
    )
    return logs / "run" / "version_0"


def trained(folder: Path) -> dict[Path, dict[str, torch.Tensor]]:
    """The trained weights of all of a run's trainings, after a look at their zeros."""
    found = {}
    for path in sorted(folder.glob("replicate_*/*/*/trained.pt")):
        weights = torch.load(path)["weights"]
        mask = torch.load(path.with_name("mask.pt"))["mask"]
        assert all(not weights[name][~part].any() for name, part in mask.items())
        found[path.relative_to(folder)] = weights
    return found


@pytest.mark.parametrize("network", ["LeNet300", "Conv2"])
def test_trainings_together_in_a_graph_give_what_each_gives_alone(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)

    def make_model():
        # A rate that a float32 holds exactly: in a graph it is one.
        return getattr(models, network)(
            shape=Digits.shape, optimizer=lambda p: torch.optim.Adam(p, lr=2**-9, fused=True)
        ).double()

    look = Look()
    ours = run(tmp_path / "together", True, make_model, Doubles(), look)
    theirs = run(tmp_path / "alone", False, make_model, Doubles(), pl.Callback())
    assert look.captured == [(2, True), (4, True), (4, True)]
    mine, other = trained(ours), trained(theirs)
    assert list(mine) == list(other)
    assert len(mine) == 2 * (3 + 2)
    for path in mine:
        for name, value in other[path].items():
            torch.testing.assert_close(mine[path][name], value, rtol=0, atol=1e-8, msg=f"{path} {name}")
        assert all(
            torch.equal(part, torch.load(theirs / path.with_name("mask.pt"))["mask"][name])
            for name, part in torch.load(ours / path.with_name("mask.pt"))["mask"].items()
        )


class Format(pl.Callback):
    """Whether the convolutions' weights have their channels last."""

    def __init__(self) -> None:
        self.last: list[bool] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = pl_module.get_parameter("net.conv2.weight")
        self.last.append(weights.dim() == 4 and weights.is_contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_half_precision_keeps_names_and_masks_through_two_levels(tmp_path: Path, together: bool) -> None:
    look = Format()
    make_model = lambda: models.Conv2(shape=Digits.shape)  # noqa: E731
    folder = run(tmp_path, together, make_model, Digits(), look, precision="bf16-mixed")
    # Weights of several networks have five dimensions, which that format has not.
    assert look.last == ([False] * 3 if together else [True] * 10)
    found = trained(folder)
    assert len(found) == 2 * (3 + 2)
    assert all(list(weights) == list(make_model().state_dict()) for weights in found.values())
    assert all(value.dtype == torch.float32 for weights in found.values() for value in weights.values())
    for replicate in range(2):
        levels = [Path(f"replicate_{replicate}/ticket/level_{level:02d}") for level in range(3)]
        masks = [torch.load(folder / level / "mask.pt")["mask"]["net.conv2.weight"] for level in levels]
        assert [int(mask.sum()) for mask in masks] == [36864, 25805, 18063]
        # Level 2's went by the size of level 1's trained weights.
        sizes = found[levels[1] / "trained.pt"]["net.conv2.weight"].abs()
        assert sizes[masks[1] & ~masks[2]].max() <= sizes[masks[2]].min()


def test_what_does_not_fit_into_the_devices_memory_is_made_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the device's own: a step of more than two members asks for twice its memory."""
    forward = Stack.forward
    tries = []

    def greedy(self: Stack, images: torch.Tensor) -> torch.Tensor:
        if self.members > 2:
            tries.append(self.members)
            torch.empty(2 * torch.cuda.mem_get_info()[1], dtype=torch.uint8, device="cuda")
        return forward(self, images)

    monkeypatch.setattr(Stack, "forward", greedy)
    folder = run(tmp_path, True, lambda: LeNet300(shape=Digits.shape), Digits(), pl.Callback())
    assert tries == [4]
    assert len(trained(folder)) == 2 * (3 + 2)

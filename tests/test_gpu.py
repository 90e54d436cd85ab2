"""The promises on a CUDA device: zeros, rewinding, resuming. Run with `pytest -m gpu`."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lth_lightning.callbacks import Display, PruningLoop, RandomReinit
from lth_lightning.data import Digits
from lth_lightning.models import LeNet300

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

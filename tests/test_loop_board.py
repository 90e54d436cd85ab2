"""TensorBoard's summary: a line for each arm, its points in the order of the levels, however fast they come."""

import re
from pathlib import Path
from typing import Any

import pytest
from loop_helpers import OwnModule, SmallData, go, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import Tensor
from torch.nn.functional import cross_entropy

from lth_lightning.data import Digits


def points(folder: Path, tag: str) -> list[Any]:
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def test_a_lines_points_are_in_order_also_after_a_resume(tmp_path: Path) -> None:
    run = tmp_path / "run" / "version_0"
    go(tmp_path, {"levels": 12}, steps=2)
    line = run / "summary" / "replicate_0" / "ticket"
    assert points(line, "level/density") == list(range(13))
    go(tmp_path, {"levels": 14}, steps=2, folder=run)
    assert points(line, "level/density") == list(range(15))
    assert len(list(line.glob("events.*"))) == 1


def test_each_training_has_its_row_of_hyperparameters(tmp_path: Path) -> None:
    go(tmp_path, {"levels": 1}, steps=2)
    for level in (0, 1):
        folder = tmp_path / "run" / "version_0" / "replicate_0" / "ticket" / f"level_{level:02d}"
        assert len(list(folder.glob("events.*.hparams"))) == 1
        assert points(folder, "level/final_test_acc") == [level]


class Slashed(OwnModule):
    """Logs as many templates do: `val/loss`, and by step and by epoch, which makes `val/acc_epoch`."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def _evaluate(self, name: str, batch: list[Tensor]) -> None:
        logits = self(batch[0])
        self.log(f"{name}/loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}/acc", (logits.argmax(1) == batch[1]).float().mean(), on_step=True, on_epoch=True)


@pytest.mark.parametrize(("test_curve", "model", "data"), [
    (True, tiny, Digits), (False, tiny, Digits), (False, Slashed, SmallData),
])  # fmt: skip
def test_the_layout_charts_the_tags_that_there_are(tmp_path: Path, test_curve: bool, model: Any, data: Any) -> None:
    loop = {"levels": 1, "test_curve": test_curve, "evaluate_every": 2, "rates": {"linear": 0.2, "output": 0.1}}
    go(tmp_path, loop, steps=4, model=model, data=data(), log_every_n_steps=1)
    run = tmp_path / "run" / "version_0"
    line = run / "summary" / "replicate_0" / "ticket"
    (event,) = EventAccumulator(str(line)).Reload().Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    tags = {
        tag
        for folder in (line, run / "replicate_0" / "ticket" / "level_01")
        for tag in EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    }
    charts = [chart for category in layout.category for chart in category.chart]
    assert len(charts) == 7 + test_curve
    for chart in charts:
        (pattern,) = chart.multiline.tag
        assert [tag for tag in tags if re.fullmatch(pattern, tag)], (chart.title, tags)

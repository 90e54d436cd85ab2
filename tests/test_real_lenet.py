"""LeNet on the real MNIST: the paper's absolute accuracy, and a ticket that wins."""

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl

from lth_lightning.callbacks import Display, PruningLoop, RandomReinit
from lth_lightning.data import MNIST
from lth_lightning.models import LeNet300
from lth_lightning.results import Record

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("LTH_DATA" not in os.environ, reason="LTH_DATA does not name a folder with the data sets"),
]


def run(loop: PruningLoop, steps: int, logs: Path) -> dict[tuple[str, int], Record]:
    data = MNIST(root=os.environ["LTH_DATA"], download=False)
    records = loop.run(
        lambda training: pl.Trainer(max_steps=steps, accelerator="cpu", logger=False),
        LeNet300,
        data,
        logs=logs,
        display=Display(enabled=False),
    )
    return {(record.arm, record.level): record for record in records}


def test_the_dense_network_reaches_the_papers_accuracy_at_the_end_of_50k_steps(tmp_path: Path) -> None:
    dense = run(PruningLoop(levels=0), 50_000, tmp_path)["ticket", 0]
    assert dense.steps == 50_000
    assert dense.final_test_acc == pytest.approx(0.980, abs=0.003)
    assert dense.final_train_acc is not None
    assert dense.final_train_acc > 0.995


def test_at_21_percent_the_ticket_is_no_worse_than_dense_and_beats_its_random_reinit(tmp_path: Path) -> None:
    """LTH section 2 and Fig. 3 at a tenth of the steps: sooner and more accurate at early stop."""
    records = run(PruningLoop(levels=7, controls=[RandomReinit(levels=[7])]), 6_000, tmp_path)
    dense, ticket, reinit = records["ticket", 0], records["ticket", 7], records["random_reinit", 7]
    assert ticket.weights_remaining == reinit.weights_remaining == 56_094
    assert ticket.early_stop_test_acc >= dense.early_stop_test_acc
    assert ticket.early_stop_step < dense.early_stop_step
    assert ticket.early_stop_test_acc > reinit.early_stop_test_acc
    assert ticket.early_stop_step < reinit.early_stop_step

"""What is told before a folder is claimed: stale modules, criteria that cannot score, and what a run will lack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import ALL_RATES as RATES
from loop_helpers import OwnModule, SmallData, driver, go, refusal, tiny
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks import (
    Display,
    RandomMask,
    RandomReinit,
    Rewound,
    SearchedAnew,
    ShuffledMask,
)
from lth_lightning.data import Digits
from lth_lightning.errors import UserError
from lth_lightning.pruning import SNIP, Criterion, Evidence, GraSP, LargeInit, Score, SynFlow
from lth_lightning.results import read_records


def remarks(*args: Any, **options: Any) -> str:
    made = driver(*args, **options)
    made.prepare()
    return "\n".join(made.remarks)


class SeedsItself(OwnModule):
    def __init__(self) -> None:
        pl.seed_everything(42, verbose=False)
        super().__init__()


class Loads(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))


class LoadsItsStem(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        nn.init.dirac_(self.stem.weight)


class ZeroHead(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.head.weight)


class Unseeded(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        drawn = np.random.default_rng().random(self.head.weight.shape)
        self.head.weight = nn.Parameter(torch.tensor(drawn, dtype=torch.float32))


SHARED = nn.Linear(4 * 36, 3)


class SharesItsHead(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        self.head = SHARED


@pytest.mark.parametrize("stale", [SeedsItself, Loads])
@pytest.mark.parametrize("control", [RandomReinit, RandomMask, SearchedAnew])
def test_a_control_that_would_start_from_the_tickets_own_weights_is_refused(stale: Any, control: Any) -> None:
    text = refusal({"controls": [Rewound(), control()]}, stale)
    assert text.startswith(f"{control().arm} would start from the ticket's own weights")
    assert ("sets the random seed itself" in text) == (stale is SeedsItself)


@pytest.mark.parametrize("stale", [SeedsItself, Loads])
def test_a_stale_module_may_serve_one_replicate_without_fresh_weights(stale: Any) -> None:
    assert "fresh" not in remarks({"controls": [Rewound(), ShuffledMask()]}, stale)


def test_replicates_that_start_alike_are_told_and_refused_where_the_module_seeds_itself() -> None:
    assert "Not fresh in replicates: all weights" in remarks({"replicates": 2}, Loads)
    assert "All replicates would start from the same weights" in refusal({"replicates": 2}, SeedsItself)


def test_layers_that_are_loaded_are_told_by_name_and_constants_are_nobodys_business() -> None:
    told = remarks({"controls": [RandomReinit()], "replicates": 2}, LoadsItsStem)
    assert "Not fresh in replicates, random_reinit: the weights of stem.weight" in told
    for model in (ZeroHead, OwnModule):
        assert "fresh" not in remarks({"controls": [RandomReinit()], "replicates": 2}, model)


def test_a_module_that_one_seed_gives_twice_otherwise_is_told() -> None:
    assert "comes out otherwise the second time ('head.weight')" in remarks({}, Unseeded)


def test_modules_that_share_weights_or_are_one_are_refused() -> None:
    assert "share 'head.weight'" in refusal({}, SharesItsHead)
    only = OwnModule()
    assert "the same object each time" in refusal({}, lambda: only)


# --- criteria


class Attention(OwnModule):
    """Tokens, a fused attention and an embedding; it can be differentiated twice by some kernels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.head = nn.Linear(12, 3)
        del self.stem, self.block

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedding((x.flatten(1) * 7).long().clamp(0, 7))
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Indices(Attention):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            self.embedding(x)  # as where the batches are of integers
        return super().forward(x)


class Equal(Score):
    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return torch.ones_like(final)


class Infinite(Score):
    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return 1 / (final - final)


class Buggy(Criterion):
    def scores(self, evidence: Evidence) -> Any:
        return evidence.nothing  # type: ignore[attr-defined]


class Manual(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class AsksTheTrainer(OwnModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) / self.trainer.max_steps


@pytest.mark.parametrize("where", ["score", "control"])
@pytest.mark.parametrize(
    ("score", "model", "told"),
    [
        (SynFlow(), Indices, "SynFlow cannot score this network (RuntimeError: "),
        (Equal(), OwnModule, "Equal gives all 36 weights of 'stem.weight' the same score, 1"),
        (Infinite(), OwnModule, "Infinite gives scores for 'stem.weight' that are not finite"),
        (LargeInit(), ZeroHead, "LargeInit gives all 432 weights of 'head.weight' the same score, 0"),
        (SNIP(samples=9), Manual, "a module that steps its optimizers itself"),
        (SNIP(samples=9), AsksTheTrainer, "SNIP cannot score this network (RuntimeError: AsksTheTrainer"),
    ],
)
def test_a_criterion_that_cannot_score_is_told_before_anything_is_written(
    tmp_path: Path, score: Criterion, model: Any, told: str, where: str
) -> None:
    loop = {"levels": 1, "rates": RATES}
    loop |= {"score": score} if where == "score" else {"controls": [SearchedAnew(score=score)]}
    with pytest.raises(UserError) as error:
        go(tmp_path, loop, model=model, data=SmallData())
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_bug_in_somebodys_own_criterion_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        go(tmp_path, {"levels": 1, "score": Buggy()})
    assert not list(tmp_path.iterdir())


class BrokenData(SmallData):
    def train_dataloader(self) -> Any:
        raise KeyError("my own bug")


def test_a_bug_in_somebodys_own_data_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="my own bug"):
        driver({"score": SNIP(samples=9)}, data=BrokenData()).prepare()


def test_what_is_true_of_the_initialization_alone_is_not_held_against_a_later_rewind_point() -> None:
    driver({"score": LargeInit(), "rewind_step": 3}, ZeroHead).prepare()


def test_grasp_goes_through_attention(tmp_path: Path) -> None:
    loop = {"levels": 1, "rates": RATES, "one_shot": True, "score": GraSP(samples=20)}
    assert [record.level for record in go(tmp_path, loop, steps=6, model=Attention, data=SmallData())] == [0, 1]


def test_without_levels_no_criterion_is_tried(tmp_path: Path) -> None:
    assert len(go(tmp_path, {"levels": 0, "score": Equal()}, steps=4)) == 1


# --- what a run will lack


def test_weights_outside_are_told_once(tmp_path: Path) -> None:
    told = remarks({}, Attention)
    # 8 x 12 and 36 x 12 outside; 12 x 12 of out_proj and 12 x 3 counted
    assert "528 weights (embedding.weight, attention.in_proj_weight). Densities are of the other 180." in told
    assert "Neither pruned nor counted" not in remarks({}, OwnModule)
    console = Console(record=True, width=300)
    with console.capture() as shown:
        go(
            tmp_path,
            {"levels": 1, "rates": RATES},
            steps=6,
            model=Attention,
            data=SmallData(),
            display=Display(console),
        )
    assert shown.get().count("Neither pruned nor counted") == 1


class NoTest(OwnModule):
    test_step = pl.LightningModule.test_step


class NoTestLoader(SmallData):
    test_dataloader = pl.LightningDataModule.test_dataloader


class OtherNames(OwnModule):
    def _evaluate(self, name: str, batch: Any) -> None:
        self.log_dict({f"{name}/objective": cross_entropy(self(batch[0]), batch[1]), f"{name}/acc": 0.5})


class AtTheEnd(OwnModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", 1.0)


def test_a_run_that_can_have_no_winning_ticket_says_so_first() -> None:
    cannot = "No ticket of this run can be called a winning one: "
    assert f"{cannot}the module has no test_step that would log test_acc." in remarks({}, NoTest)
    assert f"{cannot}there is no test_dataloader for test_acc." in remarks({}, data=NoTestLoader())
    assert f"{cannot}trainer.limit_test_batches is 0" in remarks({}, limit_test_batches=0)
    assert f"{cannot}validation_step logs val/acc, val/objective and no val_loss (log it under that name)." in remarks(
        {}, OtherNames
    )
    for model in (OwnModule, AtTheEnd):
        assert cannot not in remarks({}, model)
    assert cannot not in remarks({"rates": {"linear": 0.2}}, tiny, data=Digits())


def test_accuracy_on_somebodys_own_training_set_is_measured_where_it_is_asked_for(tmp_path: Path) -> None:
    line = "Accuracy on the training set is not measured with data of your own"
    assert line in remarks({})
    assert line not in remarks({"train_accuracy": False})
    for asked, is_known in ((None, False), (True, True)):
        go(tmp_path, {"levels": 0, "train_accuracy": asked}, steps=4, model=OwnModule, data=SmallData())
        run = max((tmp_path / "run").iterdir())
        assert (read_records(run)[0].final_train_acc is not None) == is_known
    assert go(tmp_path, {"levels": 0}, steps=4)[0].final_train_acc is not None


def test_a_grid_says_whose_densities_it_has() -> None:
    one_shot = {"one_shot": True, "grid": [0.5, 0.2], "rates": {"linear": 0.2, "output": 0.1}}
    told = "Level 1 has {} of all weights: the grid's 0.5 is what is left of level 0's linear layers, and others"
    assert told.format("51.6%") in remarks(one_shot, tiny, Digits())
    assert "grid" not in remarks({**one_shot, "rates": {"linear": 0.2, "output": 0.2}}, tiny, Digits())

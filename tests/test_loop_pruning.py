"""PruningLoop: which weights go, and what the survivors go back to."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    SIZES,
    Capture,
    Captures,
    OwnModule,
    SmallData,
    WithLoaders,
    equal,
    go,
    level,
    load,
    pruned_by_magnitude,
    rows,
    tiny,
)

from lth_lightning.data import Digits

# 1024, 128 and 80 weights; 20%, 20% and 10% of what is left go, rounded; worked out on paper.
FC1, FC2, OUTPUT = [1024, 819, 655, 524], [128, 102, 82, 66], [80, 72, 65, 59]
LEFT = [a + b + c for a, b, c in zip(FC1, FC2, OUTPUT, strict=True)]
LAYER_RATES = {"net.fc1.weight": 0.2, "net.fc2.weight": 0.2, "net.output.weight": 0.1}


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Captures, list[Any]]:
    """Levels 0-3 of a tiny LeNet."""
    logs, captures = tmp_path_factory.mktemp("lenet"), Captures()
    records = go(logs, {"levels": 3, "rates": RATES, "evaluate_every": 10}, steps=30, callbacks=captures)
    return logs / "run" / "version_0", captures, records


class RewindFile(Capture):
    """Reads rewind.pt when a training starts, too."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / "replicate_0" / "rewind.pt"
        self.content = b""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.content = self.path.read_bytes()


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Captures]:
    """Levels 0-3 of a convolutional module with batch norm and loaders of its own."""
    logs = tmp_path_factory.mktemp("conv")
    run = logs / "run" / "version_0"
    captures = Captures(lambda: RewindFile(run))
    rates = {"conv": 0.2, "linear": 0.2, "output": 0.1}
    settings = {"levels": 3, "rates": rates, "evaluate_every": 10}
    go(logs, settings, steps=30, model=WithLoaders, callbacks=captures, own_data=True)
    return run, captures


def test_each_level_keeps_the_hand_computed_number_of_weights(lenet: tuple[Path, Captures, list[Any]]) -> None:
    run, _, records = lenet
    assert [record.weights_remaining for record in records] == LEFT
    assert [record.weights for record in records] == [sum(SIZES.values())] * 4
    assert [record.density for record in records] == [left / 1232 for left in LEFT]
    table = rows(run / "results.csv")
    assert [int(row["weights_remaining"]) for row in table] == LEFT
    for number, counts in enumerate(zip(FC1, FC2, OUTPUT, strict=True)):
        content = load(level(run, number) / "mask.pt")
        assert [int(part.sum()) for part in content["mask"].values()] == list(counts)
        assert content["density"] == LEFT[number] / 1232
        assert (content["format"], content["level"], content["replicate"]) == (1, number, 0)
        assert (content["arm"], content["trial"]) == ("ticket", 0)


def test_a_mask_is_the_magnitude_pruning_of_the_level_before(lenet: tuple[Path, Captures, list[Any]]) -> None:
    run, _, _ = lenet
    for number in (1, 2, 3):
        parent = level(run, number - 1)
        mask, trained = load(parent / "mask.pt")["mask"], load(parent / "trained.pt")["weights"]
        expected = pruned_by_magnitude(mask, trained, LAYER_RATES)
        assert equal(load(level(run, number) / "mask.pt")["mask"], expected)
        assert all(not (new & ~old).any() for new, old in zip(expected.values(), mask.values(), strict=True))


def test_level_0_starts_from_the_rewind_point(lenet: tuple[Path, Captures, list[Any]]) -> None:
    run, captures, _ = lenet
    assert equal(captures.ticket(0).weights, load(run / "replicate_0" / "rewind.pt")["weights"])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_survivors_start_from_the_rewind_point_and_the_others_from_zero(
    lenet: tuple[Path, Captures, list[Any]], number: int
) -> None:
    run, captures, _ = lenet
    point, mask = load(run / "replicate_0" / "rewind.pt"), load(level(run, number) / "mask.pt")["mask"]
    start = captures.ticket(number).weights
    assert point["step"] == 0
    for name, weights in point["weights"].items():
        kept = mask.get(name, torch.ones_like(weights, dtype=torch.bool))
        assert torch.equal(start[name][kept], weights[kept])
        assert not start[name][~kept].any()
    # The training did move them, so equality says something.
    trained = load(level(run, number - 1) / "trained.pt")["weights"]
    assert not torch.equal(trained["net.fc1.bias"], point["weights"]["net.fc1.bias"])


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_biases_norm_parameters_and_buffers_are_rewound(conv: tuple[Path, Captures], number: int) -> None:
    run, captures = conv
    weights = load(run / "replicate_0" / "rewind.pt")["weights"]
    mask = load(level(run, number) / "mask.pt")["mask"]
    start = captures.ticket(number).weights
    assert set(mask) == {"stem.weight", "block.conv.weight", "head.weight"}
    buffers = {"block.norm.running_mean", "block.norm.running_var", "block.norm.num_batches_tracked"}
    assert buffers < set(weights)
    trained = load(level(run, number) / "trained.pt")["weights"]
    for name in weights:
        expected = weights[name] * mask[name] if name in mask else weights[name]
        assert torch.equal(start[name], expected), name
        assert start[name].dtype == weights[name].dtype
        assert not torch.equal(trained[name], expected), name


def test_the_rewind_point_is_written_once(conv: tuple[Path, Captures]) -> None:
    run, captures = conv
    now = (run / "replicate_0" / "rewind.pt").read_bytes()
    assert now
    assert [captures.ticket(number).content == now for number in range(4)] == [True] * 4


def test_every_level_has_an_optimizer_of_its_own_without_state(lenet: tuple[Path, Captures, list[Any]]) -> None:
    _, captures, _ = lenet
    optimizers = [captures.ticket(number).optimizers for number in range(4)]
    assert len({id(optimizer) for (optimizer,) in optimizers}) == 4
    assert [captures.ticket(number).state_sizes for number in range(4)] == [[0]] * 4
    # Afterwards there is one: Adam keeps moments.
    assert all(len(optimizer.state) == 6 for (optimizer,) in optimizers)


def test_a_foreign_modules_optimizer_is_fresh_at_every_level(conv: tuple[Path, Captures]) -> None:
    _, captures = conv
    assert [captures.ticket(number).state_sizes for number in range(4)] == [[0]] * 4
    assert all(len(captures.ticket(number).optimizers[0].param_groups) == 2 for number in range(4))


class Worsening(OwnModule):
    """Its validation loss rises from the first evaluation on."""

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val_loss", float(self.global_step))


def test_masks_come_from_the_weights_at_the_end_not_at_early_stop(tmp_path: Path) -> None:
    settings = {"levels": 1, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 5, "save_early_stop": True}
    records = go(tmp_path, settings, steps=40, model=Worsening, data=SmallData())
    assert [record.early_stop_step for record in records] == [5, 5]
    run = tmp_path / "run" / "version_0"
    mask, trained = load(level(run, 0) / "mask.pt")["mask"], load(level(run, 0) / "trained.pt")
    rates = {"stem.weight": 0.2, "block.conv.weight": 0.2, "head.weight": 0.1}
    found = load(level(run, 1) / "mask.pt")["mask"]
    assert equal(found, pruned_by_magnitude(mask, trained["weights"], rates))
    assert not equal(found, pruned_by_magnitude(mask, trained["early_stop_weights"], rates))


@pytest.mark.parametrize("grid", [None, [0.9, 0.5]])
def test_one_shot_cuts_every_level_from_level_0(tmp_path: Path, grid: list[float] | None) -> None:
    settings = {"levels": 2, "rates": RATES, "evaluate_every": 10, "one_shot": True, "grid": grid}
    records = go(tmp_path, settings)
    # In a grid the hidden layers have its densities, and the output layer, at half their rate, loses half the fraction.
    counts = {1: (922, 115, 76), 2: (512, 64, 60)} if grid else {n: (FC1[n], FC2[n], OUTPUT[n]) for n in (1, 2)}
    assert [record.weights_remaining for record in records] == [1232, sum(counts[1]), sum(counts[2])]
    run = tmp_path / "run" / "version_0"
    trained = load(level(run, 0) / "trained.pt")["weights"]
    for number, kept in counts.items():
        mask = load(level(run, number) / "mask.pt")["mask"]
        for (name, part), keep in zip(mask.items(), kept, strict=True):
            sizes = trained[name].abs()
            assert int(part.sum()) == keep
            assert sizes[part].min() >= sizes[~part].max()


def test_a_global_pool_compares_layers_and_leaves_the_excluded_alone(tmp_path: Path) -> None:
    settings = {"levels": 2, "rates": {"linear": 0.3}, "scope": "global", "evaluate_every": 10}
    records = go(tmp_path, {**settings, "exclude": ["*.output.weight"], "rates": {"linear": 0.3, "output": 0.3}})
    pool = [1152, 1152 - 346, 1152 - 346 - 242]
    assert [record.weights_remaining for record in records] == [left + 80 for left in pool]
    assert records[2].density == (pool[2] + 80) / 1232
    run = tmp_path / "run" / "version_0"
    for number in (1, 2):
        trained = load(level(run, number - 1) / "trained.pt")["weights"]
        before, mask = (load(level(run, n) / "mask.pt")["mask"] for n in (number - 1, number))
        assert set(mask) == {"net.fc1.weight", "net.fc2.weight"}
        kept = torch.cat([trained[name][part].abs() for name, part in mask.items()])
        gone = torch.cat([trained[name][before[name] & ~part].abs() for name, part in mask.items()])
        assert kept.min() >= gone.max()
        assert len(kept) == pool[number]
        assert int((trained["net.output.weight"] != 0).sum()) == 80


def test_until_density_ends_at_the_first_level_at_or_below_it(tmp_path: Path) -> None:
    records = go(tmp_path, {"until_density": 0.6, "rates": RATES, "evaluate_every": 10})
    assert [record.weights_remaining for record in records] == LEFT
    assert records[-1].density <= 0.6 < records[-2].density


def test_a_ticket_is_where_level_0_starts(tmp_path: Path, lenet: tuple[Path, Captures, list[Any]]) -> None:
    from lth_lightning.pruning import Ticket

    source = level(lenet[0], 2)
    file = tmp_path / "ticket.pt"
    Ticket.load(source).save(file)
    mask = load(source / "mask.pt")["mask"]
    weights = load(lenet[0] / "replicate_0" / "rewind.pt")["weights"]
    for index, path in enumerate((source, file)):
        captures = Captures()
        settings = {"levels": 1, "rates": RATES, "evaluate_every": 10, "ticket": str(path), "replicates": 2}
        records = go(tmp_path, settings, seed=5, callbacks=captures)
        run = tmp_path / "run" / f"version_{index}"
        assert [record.weights_remaining for record in records] == [LEFT[2], LEFT[3]] * 2
        for replicate in (0, 1):
            assert equal(load(level(run, 0, replicate=replicate) / "mask.pt")["mask"], mask)
            started = captures.ticket(0, replicate).weights
            assert equal(started, {name: w * mask[name] if name in mask else w for name, w in weights.items()})
            again = captures.ticket(1, replicate).weights
            deeper = load(level(run, 1, replicate=replicate) / "mask.pt")["mask"]
            assert equal(again, {name: w * deeper[name] if name in mask else w for name, w in weights.items()})


def test_a_ticket_of_another_network_is_refused_before_anything_is_written(
    tmp_path: Path, lenet: tuple[Path, Captures, list[Any]]
) -> None:
    from lth_lightning.errors import UserError
    from lth_lightning.models import LeNet300

    settings = {"levels": 1, "rates": RATES, "ticket": str(level(lenet[0], 2))}
    with pytest.raises(UserError, match=r"net\.fc1\.weight"):
        go(tmp_path, settings, model=lambda: LeNet300(shape=(1, 8, 8), hidden=(12, 8)))
    assert not list(tmp_path.iterdir())


def test_a_score_of_ones_own_decides_what_goes(tmp_path: Path) -> None:
    from lth_lightning.pruning import Score

    class Largest(Score):
        def __call__(self, final: torch.Tensor, initial: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return -final.abs()

    go(tmp_path, {"levels": 1, "rates": RATES, "evaluate_every": 10, "score": Largest()}, model=tiny, data=Digits())
    run = tmp_path / "run" / "version_0"
    trained, mask = load(level(run, 0) / "trained.pt")["weights"], load(level(run, 1) / "mask.pt")["mask"]
    for name, part in mask.items():
        assert trained[name][part].abs().max() <= trained[name][~part].abs().min()

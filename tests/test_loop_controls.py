"""PruningLoop: seeds, replicates and controls."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    Capture,
    Captures,
    OwnModule,
    SmallData,
    assert_same,
    contents,
    equal,
    go,
    level,
    load,
    rows,
    tiny,
)

from lth_lightning.callbacks import Control, PruningLoop, RandomMask, RandomReinit, Start
from lth_lightning.errors import UserError
from lth_lightning.pruning import Weights

LOOP = {"levels": 2, "rates": RATES, "evaluate_every": 10}


class Batches(Capture):
    """Notes the first batch's labels too."""

    labels: torch.Tensor

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.step < 0:
            self.labels = batch[1].clone()
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path, own: bool) -> None:
    module = {"model": OwnModule, "data": SmallData} if own else {"model": lambda: tiny(dropout=0.2), "data": None}
    settings = {**LOOP, "rates": {"linear": 0.2, "conv": 0.2, "output": 0.1}} if own else LOOP
    settings = {**settings, "levels": 1, "replicates": 1 + (not own), "controls": [RandomReinit(), RandomMask()]}
    for index, seed in enumerate((0, 0, 1)):
        torch.manual_seed(100 + index)  # seed 0 is a seed: whatever was drawn before does not count
        data = module["data"]() if module["data"] else None
        go(tmp_path, settings, seed=seed, model=module["model"], data=data)
    first, again, other = (tmp_path / "run" / f"version_{index}" for index in range(3))
    assert_same(first, again)
    ours, theirs = contents(first), contents(other)
    assert list(ours) == list(theirs)
    for name in ours:
        if name.endswith(("metrics.csv", "result.json")):
            assert ours[name] != theirs[name], name
        elif name.endswith(("rewind.pt", "trained.pt")):
            assert not equal(ours[name]["weights"], theirs[name]["weights"])


@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
def test_replicates_differ_in_their_weights_and_data_order(tmp_path: Path, own: bool) -> None:
    captures = Captures(Batches)
    settings = {"levels": 1, "rates": {"linear": 0.2, "output": 0.1}, "replicates": 3, "evaluate_every": 10}
    model, data = (OwnModule, SmallData()) if own else (tiny, None)
    records = go(tmp_path, settings, model=model, data=data, callbacks=captures)
    assert [(record.replicate, record.level) for record in records] == [(r, n) for r in range(3) for n in range(2)]
    starts = [captures.ticket(0, replicate) for replicate in range(3)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        ours, theirs = starts[first].weights, starts[second].weights
        assert all(not torch.equal(ours[name], theirs[name]) for name in ours if name.endswith("output.weight"))
        assert not equal(ours, theirs)
        assert not torch.equal(starts[first].labels, starts[second].labels)
    # Levels have a data order of their own, too.
    assert not torch.equal(captures.ticket(0).labels, captures.ticket(1).labels)


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Captures, list[Any]]:
    logs, captures = tmp_path_factory.mktemp("controls"), Captures(Batches)
    controls = [RandomReinit(levels="2-3", trials=2), RandomMask(levels=[1, 3], trials=2)]
    settings = {"levels": 3, "rates": RATES, "evaluate_every": 10, "controls": controls, "save_controls": True}
    records = go(logs, settings, callbacks=captures)
    return logs / "run" / "version_0", captures, records


def test_the_table_holds_each_control_at_its_levels_and_trials(controlled: tuple[Path, Captures, list[Any]]) -> None:
    run, _, records = controlled
    expected = [
        *[("random_mask", trial, number) for trial in (0, 1) for number in (1, 3)],
        *[("random_reinit", trial, number) for trial in (0, 1) for number in (2, 3)],
        *[("ticket", 0, number) for number in range(4)],
    ]
    assert [(record.arm, record.trial, record.level) for record in records] == expected
    table = rows(run / "results.csv")
    assert [(row["arm"], int(row["trial"]), int(row["level"])) for row in table] == expected
    left = {record.level: record.weights_remaining for record in records if record.arm == "ticket"}
    assert all(record.weights_remaining == left[record.level] for record in records)


def test_random_reinit_trains_the_tickets_own_mask_from_fresh_weights(
    controlled: tuple[Path, Captures, list[Any]],
) -> None:
    run, captures, _ = controlled
    seen = [load(run / "replicate_0" / "rewind.pt")["weights"]]
    for number in (2, 3):
        mask = load(level(run, number) / "mask.pt")["mask"]
        for trial in (0, 1):
            content = load(level(run, number, f"random_reinit_{trial}") / "mask.pt")
            assert (content["arm"], content["trial"], content["level"]) == ("random_reinit", trial, number)
            assert equal(content["mask"], mask)
            start = captures.of[0, "random_reinit", trial, number]
            assert start.step == 0
            assert start.state_sizes == [0]
            for name, part in mask.items():
                assert not start.weights[name][~part].any()
                assert all((start.weights[name][part] != other[name][part]).float().mean() > 0.99 for other in seen)
            seen.append(start.weights)
    assert len(seen) == 5


def test_random_mask_has_the_tickets_counts_in_other_places(controlled: tuple[Path, Captures, list[Any]]) -> None:
    run, captures, _ = controlled
    for number in (1, 3):
        tickets = load(level(run, number) / "mask.pt")["mask"]
        masks = [load(level(run, number, f"random_mask_{trial}") / "mask.pt")["mask"] for trial in (0, 1)]
        for one, other in ((tickets, masks[0]), (tickets, masks[1]), (masks[0], masks[1])):
            for name in tickets:
                assert one[name].sum() == other[name].sum()
                assert not torch.equal(one[name], other[name])
        starts = [captures.of[0, "random_mask", trial, number].weights for trial in (0, 1)]
        point = load(run / "replicate_0" / "rewind.pt")["weights"]
        for start, mask in zip(starts, masks, strict=True):
            assert all(not start[name][~part].any() for name, part in mask.items())
            both = mask["net.fc1.weight"] & (start["net.fc1.weight"] == point["net.fc1.weight"])
            assert not both.any()


def test_a_controls_data_order_is_its_own(controlled: tuple[Path, Captures, list[Any]]) -> None:
    _, captures, _ = controlled
    labels = [capture.labels for (_, _, _, number), capture in captures.of.items() if number == 3]
    assert len(labels) == 5
    assert all(not torch.equal(labels[a], labels[b]) for a in range(5) for b in range(a))


def test_controls_leave_the_tickets_alone(tmp_path: Path, controlled: tuple[Path, Captures, list[Any]]) -> None:
    go(tmp_path, {"levels": 3, "rates": RATES, "evaluate_every": 10})
    alone = contents(tmp_path / "run" / "version_0")
    beside = contents(controlled[0])
    for name, content in alone.items():
        if name.endswith(("metrics.csv", "result.json")):
            assert content == beside[name]
        else:
            key = "mask" if name.endswith("mask.pt") else "weights"
            assert equal(content[key], beside[name][key])


def test_controls_trained_weights_are_kept_where_asked_for(
    tmp_path: Path, controlled: tuple[Path, Captures, list[Any]]
) -> None:
    assert (level(controlled[0], 2, "random_reinit_1") / "trained.pt").exists()
    go(tmp_path, {**LOOP, "controls": [RandomReinit()]})
    run = tmp_path / "run" / "version_0"
    # By default every pruned level has its control, and no file of weights.
    found = sorted(path.name for path in (run / "replicate_0" / "random_reinit_0").iterdir())
    assert found == ["level_01", "level_02"]
    assert not list(run.glob("replicate_0/random_reinit_0/*/trained.pt"))
    assert len(list(run.glob("replicate_0/ticket/*/trained.pt"))) == 3


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        (lambda: [RandomReinit(levels=[1, 7])], "level 7"),
        (lambda: [RandomReinit(levels="1-3")], "level 3"),
        (lambda: [RandomReinit(), RandomReinit(levels=[2])], "random_reinit"),
        (lambda: [RandomReinit(levels="deep")], "deep"),
        (lambda: [RandomReinit(levels="2-1")], "2-1"),
        (lambda: [RandomMask(levels=[-1])], "-1"),
        (lambda: [RandomMask(trials=0)], "trials"),
    ],
)
def test_controls_that_cannot_be_are_refused_in_one_line(tmp_path: Path, controls: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        go(tmp_path, {**LOOP, "controls": controls()})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


class HalfSign(Control):
    """Somebody's own: the ticket's mask, and its weights with every sign turned."""

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(ticket.mask, {name: -weight for name, weight in ticket.weights.items()})


def test_a_control_of_ones_own_is_one_class(tmp_path: Path) -> None:
    captures = Captures()
    records = go(tmp_path, {**LOOP, "controls": [HalfSign(levels=[2]), RandomReinit(levels=[2])]}, callbacks=captures)
    assert [record.arm for record in records] == ["half_sign", "random_reinit", "ticket", "ticket", "ticket"]
    ours, tickets = captures.of[0, "half_sign", 0, 2].weights, captures.ticket(2).weights
    assert all(torch.equal(ours[name], -tickets[name]) for name in ours)


def test_options_are_not_shared_between_loops() -> None:
    first = PruningLoop()
    first.rates["conv"] = 0.9
    first.exclude.append("*")
    assert PruningLoop().rates == {"conv": 0.1, "linear": 0.2, "output": 0.1}
    assert PruningLoop().exclude == []

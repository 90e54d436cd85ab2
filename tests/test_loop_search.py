"""Controls that search masks of their own, level by level."""

from pathlib import Path
from typing import Any

import pytest
from loop_helpers import (
    RATES,
    Captures,
    OwnModule,
    SmallData,
    StoppedError,
    assert_same,
    equal,
    go,
    level,
    load,
    pruned_by_magnitude,
)
from test_loop_resume import StopAfter
from torch import Tensor

from lth_lightning.callbacks import RandomPruning, RandomReinit, SearchedAnew
from lth_lightning.pruning import Random

LOOP = {"levels": 3, "rates": RATES, "evaluate_every": 10}
BY_NAME = {"net.fc1.weight": 0.2, "net.fc2.weight": 0.2, "net.output.weight": 0.1}


def mask_of(run: Path, number: int, arm: str = "ticket") -> dict[str, Tensor]:
    return load(level(run, number, arm) / "mask.pt")["mask"]


def trained(run: Path, number: int, arm: str = "ticket") -> dict[str, Tensor]:
    return load(level(run, number, arm) / "trained.pt")["weights"]


def searching() -> list[Any]:
    return [SearchedAnew(trials=2), RandomPruning(levels="1-3"), RandomReinit(levels=[3])]


@pytest.fixture(scope="module", params=[0, 7], ids=["from step 0", "from step 7"])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Captures, Any]:
    logs, captures = tmp_path_factory.mktemp("searched"), Captures()
    records = go(logs, {**LOOP, "rewind_step": request.param, "controls": searching()}, callbacks=captures)
    return logs / "run" / "version_0", captures, records


def test_each_levels_mask_is_cut_from_its_own_weights_of_the_level_before(
    searched: tuple[Path, Captures, Any],
) -> None:
    run, _, records = searched
    for arm in ("searched_anew_0", "searched_anew_1"):
        mask, final = mask_of(run, 0), trained(run, 0)
        for number in (1, 2, 3):
            mask = pruned_by_magnitude(mask, final, BY_NAME)
            assert equal(mask_of(run, number, arm), mask)
            final = trained(run, number, arm)
    assert equal(mask_of(run, 1, "searched_anew_0"), mask_of(run, 1))
    for number in (2, 3):
        masks = [mask_of(run, number, arm) for arm in ("ticket", "searched_anew_0", "searched_anew_1")]
        assert not any(equal(masks[a], masks[b]) for a in range(3) for b in range(a))
    left = {record.level: record.weights_remaining for record in records if record.arm == "ticket"}
    assert all(record.weights_remaining == left[record.level] for record in records)


def test_each_level_is_drawn_anew_and_trains_from_step_0(searched: tuple[Path, Captures, Any]) -> None:
    run, captures, _ = searched
    starts = [captures.ticket(0).weights]
    for (_, arm, trial, number), start in captures.of.items():
        if arm == "ticket":
            continue
        assert (start.step, start.state_sizes) == (0, [0])
        mask = mask_of(run, number, f"{arm}_{trial}")
        assert all(not start.weights[name][~part].any() for name, part in mask.items())
        for other in starts:
            assert all(not (start.weights[n] == other[n])[part].any() for n, part in mask.items())
        starts.append(start.weights)
    assert len(starts) == 11


def test_random_pruning_takes_random_weights_but_small_ones_of_the_output_layer(
    searched: tuple[Path, Captures, Any],
) -> None:
    run, _, _ = searched
    mask, final = mask_of(run, 0), trained(run, 0)
    for number in (1, 2, 3):
        small, mine = pruned_by_magnitude(mask, final, BY_NAME), mask_of(run, number, "random_pruning_0")
        for name, part in mine.items():
            assert part.sum() == small[name].sum()
            assert not (part & ~mask[name]).any()  # what is gone stays gone
        assert equal({"o": mine["net.output.weight"]}, {"o": small["net.output.weight"]})
        gone, smallest = (mask["net.fc1.weight"] & ~m["net.fc1.weight"] for m in (mine, small))
        # A fifth of what goes at random is among the smallest fifth.
        assert (gone & smallest).sum() / gone.sum() < 0.4
        assert not equal(mine, mask_of(run, number))
        mask, final = mine, trained(run, number, "random_pruning_0")


def test_the_tickets_are_what_they_are_without(tmp_path: Path, searched: tuple[Path, Captures, Any]) -> None:
    run, captures, _ = searched
    go(tmp_path, {**LOOP, "rewind_step": captures.ticket(1).step})
    alone = tmp_path / "run" / "version_0"
    for number in range(4):
        assert equal(trained(alone, number), trained(run, number))
        assert equal(mask_of(alone, number), mask_of(run, number))
    # Their weights are kept for the next level; those of other controls are not.
    assert not list(run.glob("replicate_0/random_reinit_0/*/trained.pt"))


def test_in_one_shot_every_level_is_cut_from_the_dense_ticket(tmp_path: Path) -> None:
    controls = [SearchedAnew(), SearchedAnew(name="by_chance", score=Random())]
    go(tmp_path, {**LOOP, "one_shot": True, "controls": controls})
    run = tmp_path / "run" / "version_0"
    for number in (1, 2, 3):
        assert equal(mask_of(run, number, "searched_anew_0"), mask_of(run, number))
        assert not equal(mask_of(run, number, "by_chance_0"), mask_of(run, number))


@pytest.mark.thorough
@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
def test_a_run_is_extended_interrupted_and_made_by_workers(tmp_path: Path, own: bool) -> None:
    rates = {"conv": 0.2, "output": 0.1} if own else RATES
    settings = {**LOOP, "rates": rates, "levels": 2, "checkpoint_every": 1, "evaluate_every": 5}
    controls = lambda: [SearchedAnew(), RandomPruning()]  # noqa: E731
    options: dict[str, Any] = {"model": OwnModule, "data": SmallData()} if own else {}
    go(tmp_path / "whole", {**settings, "controls": controls()}, **options)
    whole = tmp_path / "whole" / "run" / "version_0"
    # Without the controls and a level at first, then with the controls, then with all.
    logs = tmp_path / "extended"
    run = logs / "run" / "version_0"
    go(logs, {**settings, "levels": 1}, **options)
    go(logs, {**settings, "levels": 1, "controls": controls()}, folder=run, **options)
    go(logs, {**settings, "controls": controls()}, folder=run, **options)
    assert_same(run, whole)
    for index, (arm, number) in enumerate((("searched_anew", 1), ("random_pruning", 2))):
        logs = tmp_path / str(index)
        attach = lambda t: [StopAfter(12, t.folder)] if (t.arm, t.level) == (arm, number) else []  # noqa: B023, E731
        with pytest.raises(StoppedError):
            go(logs, {**settings, "controls": controls()}, callbacks=attach, **options)
        go(logs, {**settings, "controls": controls()}, folder=logs / "run" / "version_0", **options)
        assert_same(logs / "run" / "version_0", whole)

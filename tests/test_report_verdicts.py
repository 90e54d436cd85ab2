"""What a report says of claims: numbers computed by hand, and when it does not commit itself."""

import csv
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import pytest
from report_runs import write_run

from lth_lightning.report.measures import Measured
from lth_lightning.report.runs import Run, read
from lth_lightning.report.units import shown, span
from lth_lightning.report.verdict import Verdict
from lth_lightning.report.verdicts import judge, verdicts
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import TABLE

LENET = {
    "model.init_args.hidden": [300, 100],
    "model.init_args.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.0012}},
}
CONTROLS = {"random_reinit": range(1, 19), "random_mask": range(1, 19)}

STEPS = {0: 5000, 3: 4000, 7: 3000, 15: 4500}
"""The tickets' early stop at the levels that claims name; between them, the one before."""


def write(folder: Path, change: Callable[[Record], None], **options: Any) -> Run:
    """A LeNet run in which L1 to L10 hold, as the paper says, but for what `change` does."""
    options = {"levels": range(19), "controls": CONTROLS, "steps": 50_000, "every": 1000, "curves": False} | options
    options["config"] = LENET | options.get("config", {})
    write_run(folder, change=lambda record: (_as_in_the_paper(record), change(record)), **options)
    return read(folder, "lenet")


def _as_in_the_paper(record: Record) -> None:
    level, nudge = record.level, record.replicate - 1
    accuracy = 0.980 + 0.0003 * min(level, 10 + 10 - level if level > 10 else level)
    steps = STEPS[max(known for known in STEPS if known <= level)] - 100 * (level == 7)
    if record.arm == "random_reinit":
        accuracy, steps = 0.9795 - 0.0002 * max(0, level - 7), 5500 + 300 * level
    elif record.arm == "random_mask":
        accuracy, steps = 0.979 - 0.0004 * level, 5500 + 500 * level
    elif level > 15:
        accuracy, steps = 0.978, 6000
    record.early_stop_step = steps + 100 * nudge
    record.early_stop_test_acc = accuracy + 0.0001 * nudge
    record.early_stop_train_acc = record.early_stop_test_acc + 0.01
    record.final_test_acc = accuracy + 0.0001 * nudge
    record.final_train_acc = 0.999


def nothing(record: Record) -> None:
    """Changes nothing."""


def of(found: list[Verdict], claim: str) -> list[Verdict]:
    return [verdict for verdict in found if verdict.claim == claim]


def rows(folder: Path, arm: str, level: int) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["arm"] == arm and int(row["level"]) == level]


def column(folder: Path, arm: str, level: int, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder, arm, level)]


def test_sooner_is_one_minus_the_ratio_of_the_means(tmp_path: Path) -> None:
    run = write(tmp_path / "version_0", nothing)
    verdict = of(verdicts([run]), "L1")[0]
    ticket, dense = (column(run.folder, "ticket", level, "early_stop_step") for level in (7, 0))
    each = [100 * (1 - a / b) for a, b in zip(ticket, dense, strict=True)]
    assert verdict.measured == f"{100 * (1 - mean(ticket) / mean(dense)):.0f}% sooner"
    error = 4.3027 * stdev(each) / 3**0.5
    assert verdict.spread == (
        f"95% interval {mean(each) - error:.0f} to {mean(each) + error:.0f}% sooner; "
        f"each alone {min(each):.0f} to {max(each):.0f}% sooner"
    )
    assert (verdict.trials, verdict.outcome, verdict.paper) == (3, "holds", "38% sooner")


def test_the_soonest_level_is_that_of_the_lowest_mean(tmp_path: Path) -> None:
    verdict = of(verdicts([write(tmp_path / "version_0", nothing)]), "L1")[1]
    assert (verdict.measured, verdict.outcome) == ("level 7", "holds")


def test_points_and_times_against_a_control_at_one_level(tmp_path: Path) -> None:
    run = write(tmp_path / "version_0", nothing)
    times, points = of(verdicts([run]), "L8")
    slow, quick = (mean(column(run.folder, arm, 7, "early_stop_step")) for arm in ("random_reinit", "ticket"))
    assert times.measured == f"{slow / quick:.2f} times"
    low, high = (mean(column(run.folder, arm, 7, "early_stop_test_acc")) for arm in ("random_reinit", "ticket"))
    assert points.measured == f"{100 * (high - low):+.2f} points"
    assert times.outcome == "holds"


def test_the_last_level_that_is_still_better_than_dense(tmp_path: Path) -> None:
    speed, accuracy = of(verdicts([write(tmp_path / "version_0", nothing)]), "L3")
    assert (speed.measured, speed.outcome) == ("level 15", "holds")
    assert (accuracy.measured, accuracy.outcome) == ("level 15", "holds")


def test_a_trend_is_the_correlation_of_ranks_and_a_share_counts_levels(tmp_path: Path) -> None:
    found = verdicts([write(tmp_path / "version_0", nothing)])
    trend, share, _ = of(found, "L7")
    assert (trend.measured, trend.outcome) == ("rank correlation 1.00", "holds")
    assert (share.measured, share.outcome) == ("100% of 12 levels", "holds")
    assert [verdict.outcome for verdict in of(found, "L10")] == ["holds", "holds"]


def test_what_no_trial_can_exceed_is_no_limit_of_its_interval(tmp_path: Path) -> None:
    def uneven(record: Record) -> None:
        if (record.arm, record.replicate) == ("random_reinit", 2) and record.level == 8:
            record.early_stop_test_acc = 0.9802  # above the dense network's, but the mean is below
            record.early_stop_step = 9000

    trend, share, _ = of(verdicts([write(tmp_path / "version_0", uneven, replicates=5)]), "L7")
    # 98.3, the mean of 100, 100, 91.7, 100 and 100, less 2.776 x 3.727 / sqrt(5)
    assert (share.measured, share.outcome) == ("100% of 12 levels", "holds")
    assert share.spread == "95% interval 94 to 100; each alone 92 to 100"
    assert (trend.measured, trend.outcome) == ("rank correlation 1.00", "holds")


def test_what_the_data_contradict_does_not_hold(tmp_path: Path) -> None:
    def flat(record: Record) -> None:
        record.early_stop_step = 5000 + 10 * record.replicate - 5 * record.level

    found = verdicts([write(tmp_path / "version_0", flat)])
    assert of(found, "L1")[0].outcome == "does not hold"
    assert of(found, "L8")[0].outcome == "does not hold"
    trend = of(found, "L10")[0]
    assert (trend.measured, trend.outcome) == ("rank correlation -1.00", "does not hold")


@pytest.mark.parametrize("replicates", [1, 2])
def test_fewer_than_three_trials_tell_nothing(tmp_path: Path, replicates: int) -> None:
    found = verdicts([write(tmp_path / "version_0", nothing, replicates=replicates)])
    assert found
    assert {verdict.outcome for verdict in found} == {"cannot tell"}
    assert all(f"too few trials: {replicates}, and it takes 3" in v.reason for v in found if v.measured)
    assert of(found, "L1")[0].measured


def test_shorter_trainings_than_the_papers_tell_nothing(tmp_path: Path) -> None:
    found = verdicts([write(tmp_path / "version_0", nothing, steps=10_000, every=200)])
    assert {verdict.outcome for verdict in found} == {"cannot tell"}
    assert all("steps shortened: 10,000 of 50,000" in verdict.reason for verdict in found)


def test_trials_that_spread_across_the_limit_tell_nothing(tmp_path: Path) -> None:
    def noisy(record: Record) -> None:
        if record.arm == "ticket" and record.level == 7:
            record.early_stop_step = (1500, 4000, 5200)[record.replicate]

    verdict = of(verdicts([write(tmp_path / "version_0", noisy)]), "L1")[0]
    assert verdict.outcome == "cannot tell"
    assert "but the 95% interval of the trials crosses its limit" in verdict.reason


def test_a_correlation_of_the_means_may_lie_beside_those_of_single_trials_and_is_named_so(tmp_path: Path) -> None:
    def noisy(record: Record) -> None:
        # Each replicate has another level that is far too soon; the mean of three still rises throughout.
        if record.arm == "random_reinit" and record.level == 5 + record.replicate:
            record.early_stop_step -= 700

    run = write(tmp_path / "version_0", noisy)
    trend = of(verdicts([run]), "L7")[0]
    levels = range(1, 16)
    alone = []
    for replicate in range(3):
        steps = [column(run.folder, "random_reinit", level, "early_stop_step")[replicate] for level in levels]
        alone.append(pd.Series(steps).rank().corr(pd.Series(levels)))
    means = [mean(column(run.folder, "random_reinit", level, "early_stop_step")) for level in levels]
    assert means == sorted(means)
    assert max(alone) < 0.995
    assert trend.measured == "rank correlation 1.00"
    low, high = f"{min(alone):.2f}", f"{max(alone):.2f}"
    alone_text = f"each alone {low} to {high}" if low != high else f"each alone rank correlation {low}"
    assert trend.spread.endswith(f"; {alone_text}")
    assert "to 1.00; " in trend.spread, "the interval holds what is measured"


def test_a_diverged_replicate_is_no_trial(tmp_path: Path) -> None:
    run = write(tmp_path / "version_0", nothing, diverged={(1, "random_reinit", 0, 7)})
    times = of(verdicts([run]), "L8")[0]
    assert (times.trials, times.outcome) == (2, "cannot tell")
    pairs = zip(
        column(run.folder, "ticket", 7, "early_stop_step")[::2], (5500 + 2100 - 100, 5500 + 2100 + 100), strict=True
    )
    each = [slow / quick for quick, slow in pairs]
    assert times.spread == f"each alone {min(each):.2f} to {max(each):.2f}"


def test_a_level_that_is_missing_is_named(tmp_path: Path) -> None:
    run = write(tmp_path / "version_0", nothing, controls={"random_reinit": [1, 2, 3]})
    found = of(verdicts([run]), "L8")
    assert {verdict.outcome for verdict in found} == {"cannot tell"}
    assert all("no random reinit near 21.1% of the weights" in verdict.reason for verdict in found)


def test_a_run_that_ends_early_cannot_tell_what_lies_below(tmp_path: Path) -> None:
    found = verdicts([write(tmp_path / "version_0", nothing, levels=range(11), controls={})])
    speed = of(found, "L3")[0]
    assert (speed.outcome, speed.measured) == ("cannot tell", "level 10")
    assert "ticket ends at 10.8% of the weights, before 5.6%" in speed.reason
    assert "ends at 10.8% of the weights, before 2.0%" in of(found, "L5")[1].reason


def test_what_is_best_of_the_first_few_levels_is_no_answer(tmp_path: Path) -> None:
    """As in a run that is still going: each replicate has levels 0 to 5, with a peak at level 3."""

    def peak(record: Record) -> None:
        record.final_test_acc = 0.98 + 0.003 * (record.level == 3) + 0.0001 * record.replicate

    found = verdicts([write(tmp_path / "version_0", peak, levels=range(6), controls={"random_reinit": range(1, 6)})])
    best, trend = of(found, "L5")[0], of(found, "L7")[0]
    assert (best.measured, best.outcome) == ("+0.30 points", "cannot tell")
    assert best.reason == "ticket ends at 32.9% of the weights, before 3.6%"
    assert (trend.measured, trend.outcome) == ("rank correlation 1.00", "cannot tell")
    whole = verdicts([write(tmp_path / "version_1", peak)])
    assert [of(whole, claim)[0].outcome for claim in ("L5", "L7")] == ["holds", "holds"]


def test_the_levels_that_are_still_better_are_counted_to_the_last_of_a_longer_run(tmp_path: Path) -> None:
    def always_sooner(record: Record) -> None:
        if record.arm == "ticket" and record.level:
            record.early_stop_step = 3000 + record.replicate

    speed = of(verdicts([write(tmp_path / "version_0", always_sooner, levels=range(17))]), "L3")[0]
    assert (speed.measured, speed.outcome) == ("level 16", "cannot tell")
    assert speed.reason == "still so at the run's last level, 16"


def test_a_control_that_is_trained_shorter_than_tickets_tells_nothing(tmp_path: Path) -> None:
    def shorter(record: Record) -> None:
        if record.arm == "random_reinit":
            record.steps = 12_000

    found = of(verdicts([write(tmp_path / "version_0", shorter)]), "L8")
    assert [verdict.outcome for verdict in found] == ["cannot tell", "cannot tell"]
    assert all("steps shortened: 12,000 of 50,000" in verdict.reason for verdict in found)


def test_how_longer_trainings_end_is_not_how_the_papers_do_but_their_early_stop_is(tmp_path: Path) -> None:
    found = verdicts([write(tmp_path / "version_0", nothing, steps=100_000, every=5000)])
    assert of(found, "L1")[0].outcome == "holds"
    assert "steps lengthened: 100,000 instead of 50,000" in of(found, "L5")[0].reason


def test_trainings_that_are_made_otherwise_bear_on_nothing(tmp_path: Path) -> None:
    others = ({"trainer.limit_train_batches": 0.1}, {"trainer.accumulate_grad_batches": 4})
    for number, other in enumerate(others):
        assert not verdicts([write(tmp_path / f"{number}" / "version_0", nothing, config=other)])


def test_a_dense_network_without_an_early_stop_is_no_measure(tmp_path: Path) -> None:
    def falling(record: Record) -> None:
        if record.level == 0:
            record.early_stop_step = record.steps

    verdict = of(verdicts([write(tmp_path / "version_0", falling)]), "L1")[0]
    assert (verdict.outcome, verdict.measured) == ("cannot tell", "")
    assert "was lowest at its last evaluation" in verdict.reason


def test_levels_of_which_one_replicate_has_no_early_stop_are_no_measure(tmp_path: Path) -> None:
    def falling(record: Record) -> None:
        if (record.arm, record.level, record.replicate) == ("random_reinit", 9, 1):
            record.early_stop_step = record.steps

    trend, share, _ = of(verdicts([write(tmp_path / "version_0", falling)]), "L7")
    for verdict in (trend, share):
        assert (verdict.outcome, verdict.measured) == ("cannot tell", "")
        assert "random reinit at level 9 was lowest at its last evaluation" in verdict.reason


def test_arms_that_the_run_does_not_have_are_not_judged(tmp_path: Path) -> None:
    found = verdicts([write(tmp_path / "version_0", nothing, controls={})])
    assert not of(found, "L8")
    assert not of(found, "L10")
    assert len(of(found, "L7")) == 1


def test_a_claim_about_two_runs_needs_both_and_names_both(tmp_path: Path) -> None:
    def worse(record: Record) -> None:
        record.early_stop_test_acc -= 0.004
        record.early_stop_step += 1000

    iterative = write(tmp_path / "a" / "version_0", nothing)
    oneshot = write(tmp_path / "b" / "version_0", worse, controls={}, config={"pruning.one_shot": True})
    oneshot.name = "one-shot"
    assert not of(verdicts([iterative]), "L9")
    both = [verdict for verdict in of(verdicts([iterative, oneshot]), "L9") if len(verdict.runs) == 2]
    assert [verdict.runs for verdict in both] == [("lenet", "one-shot")] * 2
    assert [verdict.outcome for verdict in both] == ["holds", "holds"]
    gap = mean(column(iterative.folder, "ticket", 14, "early_stop_test_acc")) - mean(
        column(oneshot.folder, "ticket", 14, "early_stop_test_acc")
    )
    assert both[1].measured == f"{100 * gap:+.2f} points"


def test_other_settings_and_an_empty_run_have_no_verdicts(tmp_path: Path) -> None:
    assert not verdicts([write(tmp_path / "a" / "version_0", nothing, config={"pruning.rewind_step": 100})])
    assert not verdicts([write(tmp_path / "b" / "version_0", nothing, levels=[], controls={})])


@pytest.mark.parametrize(
    ("each", "accept", "outcome"),
    [
        ([1.0, 1.1, 1.2], (0, 2), "holds"),
        ([1.0, 1.1, 1.2], (0, None), "holds"),
        ([1.0, 1.1, 1.2], (1.5, None), "does not hold"),
        ([1.0, 1.1, 1.2], (None, 0.8), "does not hold"),
        ([1.0, 1.1, 1.2], (None, 0.9), "cannot tell"),
        ([1.0, 1.1, 1.2], (1.09, 2), "cannot tell"),
        ([1.0, 1.1, 1.2], (0.9, 1.3), "cannot tell"),  # two standard errors would be 0.12
        ([1.0, 1.0, 1.0, 1.1, 1.2, 1.2, 1.2], (0.9, 1.3), "holds"),
        ([1.0, 1.1, 1.2], (1.12, 2), "cannot tell"),
        ([1.0, 1.0, 1.0], (1, 1), "holds"),
    ],
)
def test_the_interval_decides(each: list[float], accept: tuple[Any, Any], outcome: str) -> None:
    # The table of Student's t at 97.5%, by degrees of freedom.
    error = {2: 4.3027, 6: 2.4469}[len(each) - 1] * stdev(each) / len(each) ** 0.5
    low, high = (float("-inf") if accept[0] is None else accept[0]), (float("inf") if accept[1] is None else accept[1])
    inside = [low <= value <= high for value in (mean(each) - error, mean(each) + error)]
    assert (outcome == "holds") == all(inside)
    assert judge(Measured(mean(each), each, "times", mean(each), mean(each)), accept, [])[0] == outcome


def test_numbers_are_shown_with_their_units() -> None:
    assert shown(38.4, "sooner") == "38% sooner"
    assert shown(-7.2, "sooner") == "7% later"
    assert shown(0.3, "points") == "+0.30 points"
    assert shown(98.0, "percent") == "98.00%"
    assert shown(9537, "weights") == "9,537 weights"
    assert span(-7, 60, "sooner") == "7% later to 60% sooner"
    assert span(None, 0, "points") == "not more"
    assert span(None, 0.5, "points") == "at most +0.50 points"
    assert span(2, None, "times") == "at least 2.00 times"
    assert span(0.7, 1, "rank") == "rank correlation 0.70 to 1.00"
    assert span(0.7, 1, "rank", bare=True) == "0.70 to 1.00"

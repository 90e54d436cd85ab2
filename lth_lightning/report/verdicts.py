"""What runs say of the paper's claims."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf, isclose
from statistics import fmean
from typing import Any

from lth_lightning.report.claims import Claim, claims, matching, settings_of, steps_of
from lth_lightning.report.measures import CannotTellError, Measured, cells, measure, quantity_of, unit_of
from lth_lightning.report.runs import Run
from lth_lightning.report.units import bounds, shown, span
from lth_lightning.report.verdict import Outcome, Verdict
from lth_lightning.results.interval import CONFIDENCE, FEWEST, half_width


def verdicts(runs: Sequence[Run]) -> list[Verdict]:
    """A verdict for each claim and each run that it speaks of; claims that no run bears on have none."""
    return [_verdict(claim, of, to) for claim in claims() for of, to in _bearing(claim, runs)]


def _bearing(claim: Claim, runs: Sequence[Run]) -> Iterator[tuple[Run, Run | None]]:
    """The runs that have the arms that the claim compares, each with the run it is held against."""
    mine = [run for run in _candidates(claim, claim.check["of"], runs) if claim.check["of"]["arm"] in run.arms]
    if "to" not in claim.check:
        yield from ((run, None) for run in mine)
        return
    end = claim.check["to"]
    others = [run for run in _candidates(claim, end, runs) if end["arm"] in run.arms]
    for run in mine:
        if run in others:
            yield run, run
        elif others:
            yield run, max(others, key=lambda other: len({record.replicate for record in other.records}))


def _candidates(claim: Claim, end: Mapping[str, Any], runs: Sequence[Run]) -> list[Run]:
    return matching(runs, settings_of(end.get("experiment", claim.experiment), end.get("where")))


def _verdict(claim: Claim, of: Run, to: Run | None) -> Verdict:
    quantity, arm = quantity_of(claim.check)[1], claim.check["of"]["arm"]
    measured, reasons = None, _shortened(claim, of, to)
    try:
        against = cells(to, claim.check["to"]["arm"], quantity) if to else None
        measured = measure(cells(of, arm, quantity, claim.check["of"].get("density")), against, claim.check)
    except CannotTellError as error:
        reasons.append(str(error))
    outcome, reason = judge(measured, claim.accept, reasons)
    unit = unit_of(claim.check)
    return Verdict(
        claim=claim.claim,
        text=claim.text,
        source=claim.where_from,
        runs=(of.name,) if to is None or to is of else (of.name, to.name),
        outcome=outcome,
        reason=reason,
        measured=shown(measured.value, measured.unit) if measured else "",
        spread="; ".join(filter(None, (_interval(measured), _spread(measured)))) if measured else "",
        trials=len(measured.each) if measured else 0,
        paper="" if claim.paper is None else shown(claim.paper, unit),
        accepted=span(*claim.accept, unit),
    )


def _interval(measured: Measured) -> str:
    """`95% interval 0.81 to 0.96`; empty where all agree, or there are too few."""
    low, high = interval(measured)
    if low == high or high == inf:
        return ""
    least, most = bounds(measured.unit)
    return f"{CONFIDENCE:.0%} interval {span(max(least, low), min(most, high), measured.unit, bare=True)}"


def interval(measured: Measured) -> tuple[float, float]:
    """Both ends of the 95% interval of what is measured.

    That of Student's t (`half_width`) of the replicates' own numbers, widened to hold around that of the means as well:
    a level, a rank correlation or a ratio of means is not the mean of those of single replicates.
    """
    error, middle = half_width(measured.each), fmean(measured.each)
    if isclose(middle, measured.value, abs_tol=1e-9):
        middle = measured.value
    return min(middle, measured.value) - error, max(middle, measured.value) + error


def _spread(measured: Measured) -> str:
    """What replicates give each alone; empty where all agree."""
    low, high = min(measured.each), max(measured.each)
    texts = {shown(value, measured.unit) for value in (low, high)}
    if texts == {shown(measured.value, measured.unit)}:
        return ""
    if len(texts) == 1:
        return f"each alone {texts.pop()}"
    # A level, a rank correlation or a number of levels of the means need not lie between those of the trials.
    return f"each alone {span(low, high, measured.unit, bare=True)}"


def judge(
    measured: Measured | None, accept: tuple[float | None, float | None], reasons: Sequence[str]
) -> tuple[Outcome, str]:
    """Outcome and, where it cannot be told, why.

    A claim holds where its whole 95% interval lies within what is accepted, fails where all of it lies outside, and
    cannot be told in between, from fewer than three trials, or for any of `reasons`. Where a claim compares arms, a
    replicate has one number of both: they are paired.
    """
    reasons = list(reasons)
    if measured is None:
        return "cannot tell", "; ".join(reasons)
    number = len(measured.each)
    if number < FEWEST:
        reasons.append(f"too few trials: {number}, and it takes {FEWEST}")
    low, high = (float("-inf") if accept[0] is None else accept[0], float("inf") if accept[1] is None else accept[1])
    # What further levels might show matters only where it could change the answer.
    is_settled = measured.most < low or measured.least > high or (low <= measured.least and measured.most <= high)
    if measured.reason and not is_settled:
        reasons.append(measured.reason)
    if reasons:
        return "cannot tell", "; ".join(reasons)
    least, most = interval(measured)
    if low <= least and most <= high:
        return "holds", ""
    if most < low or least > high:
        return "does not hold", ""
    where = "within" if low <= measured.value <= high else "outside"
    return "cannot tell", f"the mean is {where} what is accepted, but the 95% interval of the trials crosses its limit"


def _shortened(claim: Claim, of: Run, to: Run | None) -> list[str]:
    """Why the trainings are no basis: they are shorter than the paper's, or what is asked is how longer ones end."""
    found = []
    ends = quantity_of(claim.check)[1].startswith("final")
    for run, end in ((of, "of"), (to, "to")):
        if run is None:
            continue
        wanted = settings_of(claim.check[end].get("experiment", claim.experiment))["steps"]
        steps = steps_of(run, claim.check[end]["arm"])
        if steps is not None and steps < wanted:
            found.append(f"steps shortened: {steps:,} of {wanted:,}")
        elif steps is not None and steps > wanted and ends:
            found.append(f"steps lengthened: {steps:,} instead of {wanted:,}")
    return list(dict.fromkeys(found))

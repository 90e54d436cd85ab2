"""A report's page with known content, and pictures that matplotlib has drawn."""

import io
import math
from functools import cache

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from lth_lightning.report.figure import Picture
from lth_lightning.report.page import Page, RunFacts
from lth_lightning.report.style import below, styled
from lth_lightning.report.verdict import Verdict

HOSTILE = "<script>alert('x')</script> & \"quoted\" </style> {{ 7 * 7 }}"


@cache
def picture(name: str = "early_stop", words: str = "early stop", colour: str = "#0072b2") -> Picture:
    """A line, a hatch, a clipped image and a legend: all that gives an SVG names of its own."""
    with styled():
        figure = Figure(figsize=(6.4, 2.5))
        left, right = figure.subplots(1, 2)
        left.errorbar([1, 2, 3], [3, 1, 2], yerr=0.2, color=colour, marker="o", label=words)
        left.fill_between([1, 3], [1, 1], [2, 2], hatch="//", alpha=0.3)
        left.legend()
        right.imshow([[0, 1], [1, 0]])
        right.set_xlabel(words)
        below(figure, [left.lines[0]], [f"line of {words}"])
    return Picture(name, f"Title of {words}", f"Caption of {words}", f"Seen in {words}", "LTH Fig. 1", figure)


@cache
def svg(drawn: Picture, fonttype: str = "none") -> str:
    text = io.StringIO()
    with styled(), rc_context({"svg.fonttype": fonttype}):
        drawn.figure.savefig(text, format="svg")
    return text.getvalue()


def verdict(claim: str = "L1", outcome: str = "holds", **changes: object) -> Verdict:
    values: dict[str, object] = {
        "text": "Early stop comes sooner.",
        "source": "LTH section 2, Fig. 4a",
        "runs": ("lenet",),
        "reason": "Only one trial." if outcome == "cannot tell" else "",
        "measured": "38% sooner",
        "spread": "31% to 44%",
        "trials": 3,
        "paper": "38% sooner",
        "accepted": "25% to 50% sooner",
    }
    return Verdict(claim=claim, outcome=outcome, **{**values, **changes})  # type: ignore[arg-type]


def facts(name: str = "lenet") -> RunFacts:
    return RunFacts(
        name,
        "3 of 4 trainings finished",
        ["Winning tickets at level 1.", "At level 1 random_reinit is slower."],
        [("Folder", f"lightning_logs/{name}"), ("Network", "LeNet300"), ("Seed", "0")],
        f"experiment: {name}\npruning:\n  levels: 3\n",
        f"lth fit --config lightning_logs/{name}/config.yaml",
    )


def summary(runs: tuple[str, ...] = ("lenet",), levels: int = 4, quantities: int = 11) -> pd.DataFrame:
    """Early-stop steps of tickets: 5000, 900, 10000, 3000, …; none at a control's level 1, which diverged."""
    steps = (5000, 900, 10000, 3000)
    names = [f"early_stop_{q}" for q in ("val_loss", "val_acc", "test_loss", "test_acc", "train_acc")]
    names += [f"final_{q}" for q in ("val_loss", "val_acc", "test_loss", "test_acc", "train_acc")]
    rows = []
    for run in runs:
        for arm in ("ticket", "random_reinit"):
            for level in range(levels):
                diverged = arm != "ticket" and level == 1
                row: dict[str, object] = {
                    "run": run,
                    "arm": arm,
                    "level": level,
                    "density": 0.8**level,
                    "weights": round(266200 * 0.8**level),
                    "wins": None if arm != "ticket" else level == 2,
                    "trials": 0 if diverged else 3,
                    "diverged": 3 if diverged else 0,
                }
                step = math.nan if diverged else steps[level % 4] + 1000 * (level // 4) + 50 * (arm != "ticket")
                row |= {"early_stop_step": step, "early_stop_step_min": step - 100, "early_stop_step_max": step + 100}
                for name in names[: quantities - 1]:
                    value = math.nan if diverged else 0.9 + 0.01 * level
                    row |= {name: value, f"{name}_min": value - 0.01, f"{name}_max": value + 0.01}
                rows.append(row)
    return pd.DataFrame(rows)


def page(**changes: object) -> Page:
    values: dict[str, object] = {
        "title": "Lottery tickets: lenet",
        "runs": [facts()],
        "notes": ["One training is still going."],
        "verdicts": [verdict(), verdict("L1", "does not hold"), verdict("L2", "cannot tell")],
        "pictures": [picture(), picture("accuracy", "accuracy", "#440154")],
        "summary": summary(),
        "made": "lth_lightning 0.1.0, 2026-11-20 14:03",
    }
    return Page(**{**values, **changes})  # type: ignore[arg-type]


def svgs(content: Page, fonttype: str = "none") -> dict[str, str]:
    return {drawn.name: svg(drawn, fonttype) for drawn in content.pictures}

"""summary.csv: a row for each run, arm and level, over replicates and trials."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lth_lightning.report.lines import spread
from lth_lightning.report.runs import Run
from lth_lightning.results.record import COLUMNS, OK
from lth_lightning.results.training import TICKET
from lth_lightning.results.winning import judged_levels

ENDS = {"": "mean", "_min": "low", "_max": "high"}
QUANTITIES = COLUMNS[COLUMNS.index("early_stop_step") :]


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """Means, minima and maxima of all quantities of results.csv: columns `q`, `q_min` and `q_max`.

    Before them run, arm, level, density, weights (remaining), trials (that did not diverge), diverged, and wins:
    whether the level is a winning ticket, empty for controls and where it cannot be judged; and chance_excluded:
    whether the 95% intervals of a winning one's accuracy and step, over replicates, lie wholly on the winning side.
    """
    rows = [row for run in runs for row in _rows(run)]
    first = ["run", "arm", "level", "density", "weights", "trials", "diverged", "wins", "chance_excluded"]
    return pd.DataFrame(rows, columns=[*first, *(f"{q}{end}" for q in QUANTITIES for end in ENDS)])


def _rows(run: Run) -> list[dict[str, object]]:
    judged = {} if run.trains_on else {level.point.level: level for level in judged_levels(run.records)}
    found = []
    for arm in run.arms:
        every = run.table[run.table.arm == arm]
        spreads = {q: spread(run.trained[run.trained.arm == arm], q) for q in QUANTITIES}
        by: Any = every.groupby("level")  # whose key pandas' stubs do not know to be a number
        for level, rows in by:
            trained = int((rows.status == OK).sum())
            ticket = judged.get(level) if arm == TICKET else None
            row: dict[str, object] = {
                "run": run.name,
                "arm": arm,
                "level": level,
                "density": rows.density.mean(),
                "weights": round(rows.weights_remaining.mean()),
                "trials": trained,
                "diverged": len(rows) - trained,
                "wins": ticket.wins if ticket else None,
                "chance_excluded": ticket.is_certain if ticket and ticket.wins else None,
            }
            for quantity, by_level in spreads.items():
                if level in by_level.index:
                    row |= {f"{quantity}{end}": by_level[part][level] for end, part in ENDS.items()}
            found.append(row)
    return found

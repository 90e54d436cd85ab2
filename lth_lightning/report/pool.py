"""Runs that are one study: the same settings, each with other replicates (`--first-replicate`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lth_lightning.errors import UserError
from lth_lightning.report.runs import Run
from lth_lightning.results.summary import several

OF_REPLICATES = ("pruning.first_replicate", "pruning.replicates")
"""Settings in which the parts of a study differ."""

OF_PLACE = (
    "experiment",
    "logs",
    "threads",
    "data.root",
    "data.download",
    "pruning.checkpoint_every",
    "pruning.save_controls",
    "pruning.save_early_stop",
    "trainer.default_root_dir",
    "trainer.enable_autolog_hparams",
    "trainer.enable_checkpointing",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.model_registry",
    "trainer.profiler",
)
"""Settings that leave the experiment as it is: where things are, what is kept and shown, how the machine is used."""


def pool(runs: Sequence[Run], is_strict: bool = True) -> list[Run]:
    """The runs, those that are one study put together, in the place of its first.

    Runs with a config, and with settings that differ only in which replicates they make, are one study where at least
    two begin with different replicates; several runs of the same replicates are repetitions, and stay apart.

    Raises UserError where a replicate is in two runs of a study; without `is_strict` such a study stays apart.
    """
    studies: dict[object, list[Run]] = {}
    for number, run in enumerate(runs):
        studies.setdefault(_settings(run) if run.config else number, []).append(run)
    found = []
    for parts in studies.values():
        if len({part.setting("pruning.first_replicate", 0) for part in parts}) < 2:
            found += parts
        elif is_strict or not _shared(parts):
            found.append(_pooled(sorted(parts, key=lambda part: part.replicates)))
        else:
            found += parts
    return found


def _settings(run: Run) -> str:
    kept = {key: value for key, value in run.settings.items() if key not in (*OF_REPLICATES, *OF_PLACE)}
    # What a version before did not have is null in a later one's file.
    return repr(sorted((key, value) for key, value in kept.items() if value not in (None, [])))


def _shared(parts: Sequence[Run]) -> tuple[Run, Run, list[int]] | None:
    """Two runs that have the same replicates, and these."""
    for number, first in enumerate(parts):
        for second in parts[number + 1 :]:
            if shared := sorted(set(first.replicates) & set(second.replicates)):
                return first, second, shared
    return None


def _pooled(parts: Sequence[Run]) -> Run:
    if found := _shared(parts):
        first, second, shared = found
        raise UserError(
            f"{several('Replicate', shared)} {'are' if len(shared) > 1 else 'is'} in both "
            f"{first.folder} and {second.folder}, which are parts of one study: name one of them."
        )
    first = parts[0]
    curves = [part.curves for part in parts if len(part.curves)]
    run = Run(
        folder=first.folder,
        name=_name([part.name for part in parts]),
        config=first.config,
        records=[record for part in parts for record in part.records],
        curves=_joined(curves) if curves else first.curves,
        unfinished={name: step for part in parts for name, step in part.unfinished.items()},
        plan=_plan([part.plan for part in parts]),
        problems=[problem for part in parts for problem in part.problems],
        parts=list(parts),
    )
    run.records.sort(key=lambda record: record.order)
    return run


def _joined(curves: Sequence[pd.DataFrame]) -> pd.DataFrame:
    joined = pd.concat([part.astype({"arm": str}) for part in curves], ignore_index=True)
    return joined.astype({"arm": "category"})


def _plan(plans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all parts, which have the same arms; empty where one does not say."""
    if not all(plans):
        return {}
    sessions = sorted((s for plan in plans for s in plan["sessions"]), key=lambda s: str(s.get("started")))
    return {**plans[0], "replicates": sum(plan["replicates"] for plan in plans), "sessions": sessions}


def _name(names: Sequence[str]) -> str:
    """`lenet/version_0 + version_1`."""
    first = Path(names[0])
    others = [Path(name).name if Path(name).parent == first.parent else name for name in names[1:]]
    return " + ".join([names[0], *others])

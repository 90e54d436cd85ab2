"""What a run lacks, so that no reader takes a gap for a result."""

from collections.abc import Iterable, Sequence

from lth_lightning.report.lines import named
from lth_lightning.report.runs import Run
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import is_from_python
from lth_lightning.results.summary import several


def gaps(run: Run) -> list[str]:
    """A line for each: unfinished and diverged trainings, missing levels, single trials, and damaged files."""
    lines = [*run.problems]
    if not run.records:
        lines.append("No training is finished yet.")
    lines += [f"Not finished, so in no figure: {name} (step {step:,})." for name, step in run.unfinished.items()]
    lines += [f"{_place(r)} diverged at step {r.steps:,}: it is counted, and in no mean." for r in run.diverged]
    lines += _missing(run)
    if is_from_python(run.folder):
        lines.append(
            "It was started from Python, without a config, and the paper's claims are judged for runs of the shipped "
            "configs."
        )
    elif not run.config and not run.problems:
        lines.append("There is no config.yaml, or nothing in it, so no claim of the paper can be judged.")
    if len({record.replicate for record in run.records}) == 1:
        lines.append("One replicate: its lines have no spread, and no claim is judged from them.")
    return lines


def _missing(run: Run) -> list[str]:
    """Levels that a line of trainings lacks: of those planned, or, where none is known, of its other replicates'."""
    done: dict[tuple[int, str], set[int]] = {}
    for record in run.records:
        done.setdefault((record.replicate, record.label), set()).add(record.level)
    planned = {label: set(levels) for label, levels in run.plan.get("arms", {}).items()}
    for (_, label), levels in done.items():
        if not run.plan:
            planned[label] = planned.get(label, set()) | levels
    lines = []
    for label, levels in planned.items():
        lacking = {r: tuple(sorted(levels - done.get((r, label), set()))) for r in run.replicates}
        for missing in sorted(set(lacking.values()) - {()}, key=len):
            those = [replicate for replicate, found in lacking.items() if found == missing]
            lines.append(f"{named(label)}: {several('level', missing)} missing in {several('replicate', those)}.")
    return lines


def _place(record: Record) -> str:
    return f"Replicate {record.replicate}, {named(record.label)}, level {record.level}"


def of_all(runs: Sequence[Run]) -> Iterable[str]:
    """The gaps of all runs, each named where there are several."""
    for run in runs:
        for line in gaps(run):
            yield line if len(runs) == 1 else f"{run.name}: {line}"

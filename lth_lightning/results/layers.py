"""How many weights each layer of a run has left, read from its masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lth_lightning.errors import UserError
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import MASK
from lth_lightning.results.training import TICKET, Line, Training


@dataclass(frozen=True)
class LayerCount:
    """Survivors of one prunable layer at one level."""

    name: str
    """The parameter's."""
    left: int
    size: int
    units: int
    """That the weights lead into, or channels: the first dimension of the weight."""

    @property
    def density(self) -> float:
        return self.left / self.size

    @property
    def is_nearly_gone(self) -> bool:
        """Too few are left for each unit to have one, or fewer than 5; or none."""
        return self.left == 0 or (self.left < max(self.units, 5) and self.density < 0.1)


def layer_counts(level: Path) -> list[LayerCount]:
    """Of each layer in the `mask.pt` of a level's folder, in the order of the network.

    Layers that are never pruned are in no mask. Raises UserError where the file is missing or damaged.
    """
    from lth_lightning.pruning.ticket import read_format  # late: it takes torch, which `lth ls` does without

    mask = read_format(level / MASK, ("mask",))["mask"]
    return [LayerCount(name, int(part.sum()), part.numel(), next(iter(part.shape), 0)) for name, part in mask.items()]


def layers_table(run: Path, records: Sequence[Record], columns: int = 10) -> list[Table]:
    """Density of each layer at each level of the ticket arm, in %: the mean over replicates; tables side by side."""
    counts: dict[int, list[list[LayerCount]]] = {}
    for record in records:
        if record.arm == TICKET:
            counts.setdefault(record.level, []).append(layer_counts(_training(run, record).folder))
    tables = []
    levels = sorted(counts)
    for begin in range(0, len(levels), columns):
        part = levels[begin : begin + columns]
        title = "Density of each layer (%)" if begin == 0 else None
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("layer", no_wrap=True)
        for name in ("weights", *map(str, part)):
            table.add_column(name, justify="right", no_wrap=True)
        for index, layer in enumerate(counts[part[0]][0]):
            cells = []
            for level in part:
                found = [row[index].density for row in counts[level]]
                cells.append(f"{100 * sum(found) / len(found):.3g}")
            table.add_row(escape(layer.name), f"{layer.size:,}", *cells)
        tables.append(table)
    return tables


MOST_TOLD = 3
"""Layers of an arm that get a line of their own."""


def told_of_vanished(run: Path, records: Iterable[Record], arms: Iterable[str]) -> list[str]:
    """A line for each layer and each of `arms`, those that search masks, that is nearly gone at the end of the run.

    It is told from which level on, in the replicate where that comes first.
    """
    lines: dict[Line, list[Training]] = {}
    for record in sorted(records, key=lambda record: record.order):
        if record.density < 1:
            training = _training(run, record)
            lines.setdefault(training.line, []).append(training)
    told = []
    for arm in arms:
        first: dict[str, list[tuple[Training, LayerCount]]] = {}
        for trainings in (trainings for line, trainings in lines.items() if line[1] == arm):
            for name, levels in _vanishing(trainings).items():
                if name not in first or levels[0][0].level < first[name][0][0].level:
                    first[name] = levels
        told += [_told(levels) for levels in [*first.values()][:MOST_TOLD]]
        if (more := len(first) - MOST_TOLD) > 0:
            told.append(f"So {'is 1 more layer' if more == 1 else f'are {more} more layers'} of {arm}.")
    return told


def _vanishing(trainings: Sequence[Training]) -> dict[str, list[tuple[Training, LayerCount]]]:
    """By name the layers that are nearly gone at the end of a line of trainings, at each level from the first such on.

    Of levels before those that tell it one is read.
    """
    found: dict[str, list[tuple[Training, LayerCount]]] = {}
    still: dict[str, LayerCount] | None = None
    for training in reversed(trainings):
        try:
            thin = {layer.name: layer for layer in layer_counts(training.folder) if layer.is_nearly_gone}
        except UserError:
            break  # the run itself has ended well
        still = {name: layer for name, layer in thin.items() if still is None or name in still}
        if not still:
            break
        for name, layer in still.items():
            found[name] = [(training, layer), *found.get(name, [])]
    return found


def _told(levels: Sequence[tuple[Training, LayerCount]]) -> str:
    (since, layer), (last, at_last) = levels[0], levels[-1]
    fewer = ", fewer than it has units" if layer.left < layer.units else ""
    end = f", and {at_last.left:,} at level {last.level}" if at_last.left < layer.left else ""
    return (
        f"Layer '{layer.name}' is nearly gone from level {since.level} on (replicate {since.replicate} {since.label}): "
        f"{layer.left:,} of {layer.size:,} weights are left{fewer}{end}. --layers lists all densities."
    )


def _training(run: Path, record: Record) -> Training:
    return Training(*record.order, run)

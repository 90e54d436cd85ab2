"""How many weights each layer of a run has left, read from its masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from lth_lightning.errors import UserError
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import MASK
from lth_lightning.results.training import TICKET, Training


@dataclass(frozen=True)
class LayerCount:
    """Survivors of one prunable layer at one level."""

    name: str
    """The parameter's."""
    left: int
    size: int
    narrow: int
    """The smaller of the layer's numbers of units, or channels, in and out."""

    @property
    def density(self) -> float:
        return self.left / self.size

    @property
    def is_nearly_gone(self) -> bool:
        """Too few are left for each unit of the layer's narrower side to have one, or fewer than 5; or none."""
        return self.left == 0 or (self.left < max(self.narrow, 5) and self.density < 0.1)


def layer_counts(level: Path) -> list[LayerCount]:
    """Of each layer in the `mask.pt` of a level's folder, in the order of the network.

    Layers that are never pruned are in no mask. Raises UserError where the file is missing or damaged.
    """
    from lth_lightning.pruning.ticket import read_format  # late: it takes torch, which `lth ls` does without

    mask = read_format(level / MASK, ("mask",))["mask"]
    return [
        LayerCount(name, int(part.sum()), part.numel(), min(part.shape[:2], default=0)) for name, part in mask.items()
    ]


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


def told_of_vanished(run: Path, records: Iterable[Record], arms: Iterable[str]) -> list[str]:
    """A line for each of `arms`, those that search masks, whose last level has nearly lost a layer."""
    last = {record.order[:3]: record for record in sorted(records, key=lambda record: record.order)}
    told = []
    for arm in arms:
        found: list[str] = []
        for record in (record for record in last.values() if record.arm == arm and record.density < 1):
            training = _training(run, record)
            try:
                layers = layer_counts(training.folder)
            except UserError:
                continue  # the run itself has ended well
            found += [
                f"'{layer.name}' has {layer.left:,} of {layer.size:,} weights left in {training}"
                for layer in layers
                if layer.is_nearly_gone
            ]
        if found:
            more = f", and {len(found) - 3} more such layers" if len(found) > 3 else ""
            told.append(
                f"Layers of {arm} are nearly gone (fewer weights than units): {'; '.join(found[:3])}{more}. "
                "--layers lists all densities."
            )
    return told


def _training(run: Path, record: Record) -> Training:
    return Training(*record.order, run)

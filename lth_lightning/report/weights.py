"""What a run's weights say: masks, initial and trained weights of the ticket arm, and numbers computed from them.

Files are read when they are asked for, one training's at a time. One that is damaged, or missing where a finished
training leaves it, is a line in the run's `problems` and otherwise left out.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lth_lightning.errors import UserError
from lth_lightning.report.runs import Run
from lth_lightning.results.record import OK
from lth_lightning.results.run_folder import MASK, REWIND, TRAINED
from lth_lightning.results.training import TICKET

Array = NDArray[Any]
Arrays = dict[str, Array]
"""By parameter name, in the order of the network: a Linear weight [out, in], a Conv weight [out, in, height, width]."""

DENSITIES = (1.0, 0.411, 0.169, 0.07)
"""Of the networks that LTH appendix F looks into."""


def has_weights(run: Run) -> bool:
    """Whether the folder holds masks; one with nothing but its results.csv does not."""
    return any(True for folder in run.folders for _ in folder.glob(f"replicate_*/{TICKET}/level_*/{MASK}"))


def tickets(run: Run) -> pd.DataFrame:
    """The rows of results.csv of the ticket arm's trainings, without the diverged ones."""
    return run.trained[run.trained.arm == TICKET]


def finished(run: Run, level: int) -> set[int]:
    """The replicates whose ticket arm has finished a level."""
    rows = tickets(run)
    return {int(replicate) for replicate in rows.replicate[rows.level == level]}


def choose_levels(run: Run, densities: Sequence[float]) -> dict[int, float]:
    """The ticket's levels whose densities are the nearest in ratio to `densities`, each once, and their densities."""
    by_level = tickets(run).groupby("level").density.mean()
    if by_level.empty:
        return {}
    wanted = {min(by_level.index, key=lambda level: abs(log(by_level[level] / near))) for near in densities}
    return {int(level): float(by_level[level]) for level in sorted(wanted)}


def mask(run: Run, replicate: int, level: int, like: Arrays | None = None) -> Arrays | None:
    """What survives at a level of the ticket arm, by prunable parameter.

    None, and a line in `run.problems`, where the file is missing or damaged, or does not have the shapes of `like`.
    """
    return _load(run, _level(run, replicate, level) / MASK, "mask", like)


def initial(run: Run, replicate: int, like: Arrays) -> Arrays | None:
    """The prunable weights at the rewind point, survivors or not; None as of `mask`, whose parameters `like` names."""
    return _load(run, run.folder_of(replicate) / REWIND, "weights", like)


def trained(run: Run, replicate: int, level: int, like: Arrays) -> Arrays | None:
    """The prunable weights at the end of a training of the ticket arm; None as of `mask`, where it holds NaN too."""
    return _load(run, _level(run, replicate, level) / TRAINED, "weights", like)


def rewind_step(run: Run) -> int:
    """The step whose weights `initial` returns, by the config."""
    return int(run.setting("pruning.rewind_step") or 0)


def shown(names: Sequence[str]) -> list[str]:
    """The layers that stand for all: the first, the middle and the last one; of three or fewer, all."""
    names = list(names)
    return names if len(names) <= 3 else [names[0], names[len(names) // 2], names[-1]]


def layer_names(names: Sequence[str]) -> dict[str, str]:
    """`net.fc1.weight` as `fc1`: parameter names without what all share at either end."""
    parts = [name.removesuffix(".weight").split(".") for name in names]
    shared = 0
    while all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return {name: ".".join(part[shared:]) for name, part in zip(names, parts, strict=True)}


def layer_titles(masks: Arrays) -> dict[str, str]:
    """What figures call the layers: `fc1` where there are few, else `layer 12 of 21, 1x1 conv: 4.downsample.0`."""
    short = layer_names(list(masks))
    if len(shown(list(masks))) == len(masks):
        return short
    return {
        name: f"layer {number} of {len(masks)}, {_kind(masks[name])}: {short[name]}"
        for number, name in enumerate(short, start=1)
    }


def _kind(part: Array) -> str:
    sizes = "x".join(map(str, part.shape[2:]))
    return f"{sizes} conv" if sizes else "linear"


def remaining(run: Run, tick: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """What is left of each prunable layer, a row for each layer of each finished level of the ticket arm.

    Columns: replicate, level, layer (parameter name), left and size (numbers of weights), units (that the weights lead
    into: rows of a Linear weight, output channels of a Conv weight). Levels whose masks are not kept have no rows.
    `tick` is called after each level.
    """
    found = []
    for replicate, level in tickets(run)[["replicate", "level"]].itertuples(index=False):
        if (_level(run, replicate, level) / MASK).exists() and (survivors := mask(run, replicate, level)):
            for name, part in survivors.items():
                found.append((replicate, level, name, int(np.count_nonzero(part)), part.size, part.shape[0]))
        tick()
    return pd.DataFrame(found, columns=["replicate", "level", "layer", "left", "size", "units"])


def surviving(part: Array, axis: int) -> Array:
    """The fraction of each unit's weights that survive, in the order of the units.

    Args:
        part: bool, a layer's mask [out, in, ...].
        axis: 0: of the weights that come into each of the layer's units or, of a Conv layer, channels. 1: of the
            weights that go out from each of its inputs: pixels, or units or channels of the layer before. (In a grouped
            convolution the inputs at the same place of all groups count as one.)
    """
    rest = tuple(other for other in range(part.ndim) if other != axis)
    fractions: Array = np.count_nonzero(part, axis=rest) / (part.size // part.shape[axis])
    return fractions


def quantities(run: Run, levels: Sequence[int] | None = None, tick: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """Numbers that the claims of LTH appendix F need, a row for each finished training of the ticket arm.

    T is the ticket: the weights that survive at the row's level. w_0 are weights at the rewind point, w_T those at the
    end of level 0's training, |.| magnitudes. All prunable layers are taken together, unless said otherwise. The
    weights that the ticket is compared with are the others that level 0 had: in a dense network all. What cannot be
    computed, such as the ratio to no other weights at level 0, is NaN. Columns:

    - replicate, level, density.
    - moved_ratio (Fig. 19): mean |w_T - w_0| of T / that of the others. Above 1: the ticket's weights move more.
    - grown, grown_others (Fig. 20): the fraction of T, and of the others, with |w_T| > |w_0|.
    - gap_1, gap_2, gap_3 (Fig. 15 and 16), of the layers that `shown` names: how far w_0 of T keeps away from zero.
      1 - n_0 / max(n_i), where n_i counts the survivors with i s/4 <= |w_0| < (i + 1) s/4, and s is the standard
      deviation of all of the layer's w_0. About 0 where zero is the peak (a dense Gaussian), 1 where nothing is left
      around zero. Both sides count as one, so peaks of unequal height do no harm. NaN for a layer that the network
      lacks, of which nothing survives, or whose w_0 are all alike.
    - in_unevenness, out_unevenness (Fig. 21 and 23): over a layer's units, the standard deviation of the surviving
      fraction of their incoming (outgoing) weights / its mean; the mean of this over all prunable layers that have
      several units and of which anything survives. 0: every unit keeps the same fraction.
    - in_excess, out_excess: these divided by what they are where the survivors lie at random in their layers, since
      units with few weights, such as those before an output layer of ten, are uneven by chance alone. For a layer with
      N weights of which a fraction p survives and units with n weights, sqrt((1 - p) / (p n) * (N - n) / (N - 1)).

    Args:
        run: with weights, or without: the table is empty then.
        levels: the only ones to look at; all by default.
        tick: called after each row.
    """
    records = [record for record in run.records if record.arm == TICKET and record.status == OK]
    records = [record for record in records if levels is None or record.level in levels]
    found = []
    for replicate, group in groupby(records, lambda record: record.replicate) if has_weights(run) else ():
        dense = _DenseTraining(run, replicate)
        for record in group:
            survivors = mask(run, replicate, record.level, dense.first)
            if survivors is not None:
                identity = {"replicate": replicate, "level": record.level, "density": record.density}
                found.append({**identity, **dense.quantities(survivors), **_unevenness(survivors)})
            tick()
    return pd.DataFrame(found, columns=list(_COLUMNS))


_COLUMNS = (
    *("replicate", "level", "density", "moved_ratio", "grown", "grown_others", "gap_1", "gap_2", "gap_3"),
    *("in_unevenness", "out_unevenness", "in_excess", "out_excess"),
)


class _DenseTraining:
    """What level 0's training makes of each weight of a replicate, kept for the masks of all its levels.

    Attributes:
        first: level 0's mask; None where there is none, and then nothing can be said of what training does.
    """

    def __init__(self, run: Run, replicate: int) -> None:
        self.first = mask(run, replicate, 0)
        self._distance: Arrays = {}
        self._has_grown: Arrays = {}
        self._bins: Arrays = {}
        start = initial(run, replicate, self.first) if self.first else None
        if not start or not self.first:
            return
        end = trained(run, replicate, 0, self.first) if replicate in finished(run, 0) else None
        for name in self.first:
            weight = start.pop(name)  # a large network's are not kept twice
            if (spread := float(weight.std())) > 0:
                self._bins[name] = np.minimum(np.abs(weight) * (4 / spread), 255).astype(np.uint8)
            if end is not None:
                last = end.pop(name)
                self._distance[name] = np.abs(last - weight)
                self._has_grown[name] = np.abs(last) > np.abs(weight)

    def quantities(self, survivors: Arrays) -> dict[str, float]:
        values = {
            f"gap_{n}": self._gap(name, survivors[name]) for n, name in enumerate(shown(list(survivors)), start=1)
        }
        if self.first is None or not self._distance:
            return values
        inside, outside = np.zeros(3), np.zeros(3)
        for name, distance in self._distance.items():
            for sums, part in ((inside, survivors[name]), (outside, self.first[name] & ~survivors[name])):
                grown = np.count_nonzero(self._has_grown[name] & part)
                sums += np.count_nonzero(part), distance.sum(where=part, dtype=float), grown
        with np.errstate(invalid="ignore", divide="ignore"):
            (_, moved, grown), (_, moved_others, grown_others) = inside / inside[0], outside / outside[0]
            return values | {"moved_ratio": moved / moved_others, "grown": grown, "grown_others": grown_others}

    def _gap(self, name: str, part: Array) -> float:
        if name not in self._bins or not part.any():
            return float("nan")
        counts = np.bincount(self._bins[name][part])
        return 1 - float(counts[0] / counts.max())


def _unevenness(survivors: Arrays) -> dict[str, float]:
    found = {}
    for axis, name in enumerate(("in", "out")):
        measured, chance = [], []
        for part in survivors.values():
            fractions = surviving(part, axis)
            density, size = float(fractions.mean()), part.size // len(fractions)
            if density > 0 and len(fractions) > 1:
                measured.append(float(fractions.std()) / density)
                by_chance = (1 - density) / (density * size) * (part.size - size) / max(1, part.size - 1)
                chance.append(by_chance**0.5)
        found[f"{name}_unevenness"] = float(np.mean(measured)) if measured else float("nan")
        found[f"{name}_excess"] = float(np.mean(measured) / np.mean(chance)) if any(chance) else float("nan")
    return found


def _level(run: Run, replicate: int, level: int) -> Path:
    return run.folder_of(replicate) / TICKET / f"level_{level:02d}"


def _load(run: Run, path: Path, key: str, like: Arrays | None) -> Arrays | None:
    from lth_lightning.pruning.ticket import check_seed, read_format  # here, since torch takes seconds

    wrong = "is missing"
    try:
        content = read_format(path, (key,))
        if isinstance(seed := run.setting("seed_everything"), int):
            check_seed(content, seed, path)
        tensors = content[key]
        arrays: Arrays = {name: _array(tensors[name]) for name in (like or tensors)}
        if all(arrays[name].shape == part.shape for name, part in (like or {}).items()):
            if all(part.dtype == bool or np.isfinite(part).all() for part in arrays.values()):
                return arrays
            wrong = "holds NaN or infinite weights"
        else:
            wrong = "has other shapes than the replicate's masks"
    except UserError as error:
        if path.exists():
            wrong = str(error).removeprefix(f"{path} ").rstrip(".")
    except (AttributeError, KeyError, TypeError):
        wrong = f"is damaged (it does not hold the {key} of this network)"
    line = f"{path} {wrong}: what needs it is left out."
    if line not in run.problems:
        run.problems.append(line)
    return None


def _array(tensor: Any) -> Array:
    """Bools, or floats of 32 bits or more: numpy lacks bfloat16, and sums in float16 are coarse."""
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    array: Array = tensor.numpy()
    return array

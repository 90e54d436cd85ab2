"""Run folders, read for reports: config, table and curves, whatever of them is there and whole."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lth_lightning.errors import UserError
from lth_lightning.results import session
from lth_lightning.results.record import COLUMNS, DIVERGED, OK, Record, read_table
from lth_lightning.results.run_folder import CONFIG, METRICS, RESULT, SWEEP, TABLE
from lth_lightning.results.training import TICKET

KEYS = ["replicate", "arm", "trial", "level"]
"""Columns of a table or of curves that say which training a row is of."""


@dataclass
class Run:
    """What a run folder holds. A folder with nothing but a results.csv (and perhaps a config.yaml) is one too.

    Attributes:
        folder: `…/<experiment>/version_N`.
        name: what tells it from the others of the report: `lenet/version_0`, or a sweep's cell.
        config: config.yaml; empty for a run that was started from Python.
        records: results.csv.
        curves: every metrics.csv of a finished training, below another: `KEYS`, step, and its own columns.
        unfinished: trainings that have a curve but no result yet, and their last step.
        plan: run.json: `replicates`, `arms` {label: levels}, `sessions`; empty where an older version made the run.
        problems: one line for each thing that is damaged or missing by mistake; the reader should see them all.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    records: list[Record]
    curves: pd.DataFrame
    unfinished: dict[str, int] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _spreads: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """results.csv, diverged trainings included; what a training lacks is NaN."""
        return pd.DataFrame([asdict(record) for record in self.records], columns=list(COLUMNS))

    @cached_property
    def trained(self) -> pd.DataFrame:
        """`table` without the diverged trainings."""
        return self.table[self.table.status == OK]

    def curve_spreads(self, quantity: str) -> pd.DataFrame:
        """A column of the curves over replicates and trials, indexed by arm, level and step: mean, low, high, trials.

        Diverged trainings are left out, and steps that not all others of the arm and level have evaluated. Reckoned
        once, for all arms and levels, as figures ask for many of them.
        """
        if quantity not in self._spreads:
            self._spreads[quantity] = _curve_spreads(self.curves, self.trained, quantity)
        return self._spreads[quantity]

    @property
    def diverged(self) -> list[Record]:
        return [record for record in self.records if record.status == DIVERGED]

    @property
    def arms(self) -> list[str]:
        """The ticket first, then the controls by name."""
        return sorted({record.arm for record in self.records}, key=lambda arm: (arm != TICKET, arm))

    @property
    def trains_on(self) -> bool:
        """Whether its tickets go on from trained weights, so that none of them is a winning one."""
        return bool(self.setting("pruning.retrain", "Rewind") != "Rewind")

    def setting(self, key: str, default: Any = None) -> Any:
        """A setting by its dotted key, such as `pruning.levels`; class settings without `init_args`.

        `model` and `data` are the class's last name.
        """
        return self.settings.get(key, default)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config, flat: `model` LeNet300, `model.optimizer` Adam, `model.optimizer.lr` 0.0012, … Lists stay."""
        return dict(_flat(self.config))


def _curve_spreads(curves: pd.DataFrame, trained: pd.DataFrame, quantity: str) -> pd.DataFrame:
    places = ["arm", "level", "step"]
    values = (
        curves[[*KEYS, "step", quantity]] if quantity in curves else pd.DataFrame(columns=[*KEYS, "step", quantity])
    )
    values = values.merge(trained[KEYS].astype(values.dtypes[KEYS]), on=KEYS).dropna(subset=[quantity])
    # By name, for levels of a categorical arm cannot be looked up by arms that have none.
    grouped = values.astype({"arm": str, "step": int, quantity: float}).groupby(places)[quantity]
    found = grouped.agg(mean="mean", low="min", high="max", trials="count")
    most = found.trials.groupby(places[:2]).transform("max")
    whole: pd.DataFrame = found[found.trials == most]
    return whole


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in content.items():
        if isinstance(part, dict) and "class_path" in part:
            yield f"{prefix}{name}", str(part["class_path"]).rsplit(".", 1)[-1]
            yield from _flat(part.get("init_args") or {}, f"{prefix}{name}.")
        elif isinstance(part, dict):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def find(paths: Sequence[Path]) -> list[Path]:
    """The run folders in `paths`, each a run, an experiment or a sweep, in order and each once.

    Raises UserError where one of them holds no run.
    """
    found: list[Path] = []
    for path in paths:
        runs = [path] if _is_run(path) else sorted(_below(path), key=_by_number)
        if not runs:
            raise UserError(
                f"{path} holds no run: give a run's folder, such as lightning_logs/lenet/version_0, or an experiment's."
            )
        found += [run for run in runs if run.resolve() not in {other.resolve() for other in found}]
    return found


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / TABLE).is_file()


def _below(path: Path) -> Iterator[Path]:
    """Runs at any depth; within a run there is none."""
    with contextlib.suppress(OSError):
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.is_symlink():
                if _is_run(child):
                    yield child
                else:
                    yield from _below(child)


def _by_number(path: Path) -> tuple[Any, ...]:
    last = path.name.removeprefix("version_")
    return path.parent, int(last) if last.isdigit() else -1, path.name


def names(folders: Sequence[Path]) -> list[str]:
    """What tells the runs apart: their paths without the folders that all of them share, without a `version_0`."""
    parts = [folder.resolve().parts for folder in folders]
    if len(parts) == 1:
        return ["/".join(parts[0][-2:]) if parts[0][-1].startswith("version_") else parts[0][-1]]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    short = ["/".join(p[shared:]) for p in parts]
    bare = [name.removesuffix("/version_0") for name in short]
    return bare if len(set(bare)) == len(bare) else short


def read(folder: Path, name: str, tick: Callable[[], None] = lambda: None) -> Run:
    """Read one run; what is damaged is left out and named in `problems`. `tick` is called after each training."""
    problems: list[str] = []
    config = _read_config(folder, problems)
    records: list[Record] = []
    if (folder / TABLE).is_file():
        records, wrong = read_table(folder / TABLE)
        problems += [wrong] if wrong else []
    run = Run(folder, name, config, records, pd.DataFrame(), plan=_read_plan(folder, problems), problems=problems)
    run.curves = _read_curves(run, tick)
    return run


def trainings(folder: Path) -> list[Path]:
    """The folders of a run's trainings that have begun."""
    return sorted(path.parent for path in folder.glob(f"replicate_*/*/level_*/{METRICS}"))


def _read_config(folder: Path, problems: list[str]) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        return yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError):
        problems.append(f"{path} is damaged: the report does not know how the run was made.")
        return {}


def _read_plan(folder: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return session.read(folder)
    except UserError as error:
        problems.append(str(error))
        return {}


def _read_curves(run: Run, tick: Callable[[], None]) -> pd.DataFrame:
    known = {(r.replicate, r.arm if r.arm == TICKET else f"{r.arm}_{r.trial}", r.level): r for r in run.records}
    curves = []
    for folder in trainings(run.folder):
        tick()
        key = int(folder.parents[1].name.split("_")[1]), folder.parent.name, int(folder.name.split("_")[1])
        record = known.get(key)
        is_finished = (folder / RESULT).is_file()
        try:
            curve = _read_curve(folder / METRICS, is_finished)
        except ValueError as error:
            run.problems.append(f"{folder / METRICS} is damaged ({error}): the curve is left out.")
            continue
        if record is None:
            if not is_finished:
                name = f"replicate {key[0]} {key[1]} level {key[2]}"
                run.unfinished[name] = int(curve.step.iloc[-1]) if len(curve) else 0
            continue
        if record.status == OK and _is_short(curve, record.steps):
            run.problems.append(f"{folder / METRICS} ends before step {record.steps}: the curve is left out.")
            continue
        curve["replicate"], curve["arm"], curve["trial"], curve["level"] = record.order
        curves.append(curve)
    if not curves:
        return pd.DataFrame(columns=[*KEYS, "step", "train_loss", "val_loss", "val_acc"])
    joined = pd.concat(curves, ignore_index=True)
    joined["arm"] = joined.arm.astype("category")
    return joined


def _read_curve(path: Path, is_finished: bool) -> pd.DataFrame:
    """The rows of a metrics.csv; raises ValueError, whose text says what is wrong with it."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if is_finished and whole != text:
        raise ValueError("its last line is not whole")
    if not whole:
        return pd.DataFrame(columns=["step"])
    curve = pd.read_csv(io.StringIO(whole))
    if list(curve.columns[:1]) != ["step"]:
        raise ValueError("its first line does not name the columns")
    if not all(pd.api.types.is_numeric_dtype(kind) for kind in curve.dtypes) or curve.step.isna().any():
        raise ValueError("a cell is no number")
    if not (curve.step.diff()[1:] > 0).all():
        raise ValueError("its steps do not rise")
    return curve


def _is_short(curve: pd.DataFrame, steps: int) -> bool:
    """Whether an evaluation or more is missing at the end, by the distance of the first ones."""
    if curve.empty:
        return True
    distance = curve.step.iloc[1] - curve.step.iloc[0] if len(curve) > 1 else max(1, steps)
    return bool(steps - curve.step.iloc[-1] >= distance)


def expected(run: Run) -> int | None:
    """How many trainings the run consists of; None where its folder does not say."""
    if not run.plan:
        return None
    return int(run.plan["replicates"]) * sum(len(levels) for levels in run.plan["arms"].values())


def sweep_of(folder: Path) -> dict[str, Any] | None:
    """The values that make a run a cell of its sweep, from `sweep.yaml`; None for a run that is no cell."""
    try:
        cells = yaml.safe_load((folder.parents[1] / SWEEP).read_text())["cells"]
        values: dict[str, Any] = cells[folder.parent.name]["values"]
        return values
    except (OSError, KeyError, TypeError, IndexError, yaml.YAMLError):
        return None

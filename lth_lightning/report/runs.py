"""What a run folder holds, whatever of it is there and whole."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lth_lightning.errors import UserError
from lth_lightning.files import unreadable
from lth_lightning.results import session
from lth_lightning.results.record import COLUMNS, DIVERGED, OK, Record, read_records, read_table
from lth_lightning.results.run_folder import CONFIG, RESULT, TABLE, is_owned
from lth_lightning.results.training import TICKET, Training

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's reads a config.yaml in 3 ms instead of 30."""

KEYS = ["replicate", "arm", "trial", "level"]
"""Columns of a table or of curves that say which training a row is of."""


_NO_CURVES = pd.DataFrame(columns=[*KEYS, "step"])

FIRST = (TICKET, "random_reinit")
"""The arms that the paper's figures have throughout."""

OTHER = len(FIRST)


def arm_order(arm: str) -> tuple[int, str]:
    """Sorts arms: the paper's first two, and the others by name."""
    return FIRST.index(arm) if arm in FIRST else OTHER, arm


@dataclass
class Run:
    """What a run folder holds. A folder with nothing but a results.csv (and perhaps a config.yaml) is one too.

    Attributes:
        folder: `…/<experiment>/version_N`.
        name: what tells it from the others of the report: `lenet/version_0`, or a sweep's cell.
        config: config.yaml; empty for a run that was started from Python.
        records: results.csv.
        curves: every metrics.csv of a finished training, below another: `KEYS`, step, and its own columns. Only
            `curves.add_curves` reads them.
        unfinished: trainings that have a curve but no result yet, and their last step.
        plan: run.json: `first_replicate`, `replicates`, `arms` {label: levels}, `sessions`; empty where an older
            version made the run.
        parts: the runs that it is pooled of (`pool`), each with other replicates; empty for one that was made at once.
        problems: one line for each thing that is damaged or missing by mistake; the reader should see them all.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    records: list[Record]
    curves: pd.DataFrame = field(default_factory=lambda: _NO_CURVES)
    unfinished: dict[str, int] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    parts: list["Run"] = field(default_factory=list)
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
            self._spreads[quantity] = _spreads(self.curves, self.trained, quantity)
        return self._spreads[quantity]

    @property
    def planned(self) -> int | None:
        """How many trainings it consists of; None where its folder does not say."""
        if not self.plan:
            return None
        return len(self.replicates) * sum(len(levels) for levels in self.plan["arms"].values())

    @property
    def replicates(self) -> list[int]:
        """Numbers of the replicates that it consists of, or, where its folder does not say, that have results."""
        if self.parts:
            return [replicate for part in self.parts for replicate in part.replicates]
        if self.plan:
            first = int(self.plan["first_replicate"])
            return list(range(first, first + int(self.plan["replicates"])))
        return sorted({record.replicate for record in self.records})

    @property
    def folders(self) -> list[Path]:
        """The run's folder, or those of its parts."""
        return [part.folder for part in self.parts] or [self.folder]

    def folder_of(self, replicate: int) -> Path:
        """The folder `replicate_R`."""
        holder = next((part.folder for part in self.parts if replicate in part.replicates), self.folder)
        return holder / f"replicate_{replicate}"

    @property
    def is_owned(self) -> bool:
        """Whether a process is at work on it."""
        return any(map(is_owned, self.folders))

    @property
    def diverged(self) -> list[Record]:
        return [record for record in self.records if record.status == DIVERGED]

    @property
    def arms(self) -> list[str]:
        """The ticket first, then random reinitialization, then other controls by name."""
        return sorted({record.arm for record in self.records}, key=arm_order)

    @property
    def trains_on(self) -> bool:
        """Whether its tickets go on from trained weights, so that none of them is a winning one."""
        return bool(self.plan.get("trains_on") or self.setting("pruning.retrain", "Rewind") != "Rewind")

    def setting(self, key: str, default: Any = None) -> Any:
        """A setting by its dotted key, such as `pruning.levels`; class settings without `init_args`.

        `model` and `data` are the class's last name.
        """
        return self.settings.get(key, default)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config, flat: `model` LeNet300, `model.optimizer` Adam, `model.optimizer.lr` 0.0012, … Lists stay."""
        return dict(_flat(self.config))


def read(folder: Path, name: str) -> Run:
    """A run without its curves, in milliseconds; what is damaged is left out and named, path first, in `problems`."""
    run = Run(folder, name, {}, [])
    try:
        run.plan = session.read(folder)
    except UserError as error:
        run.problems.append(str(error))
    try:
        run.config = _read_config(folder, bool(run.plan.get("configs")))
    except UserError as error:
        run.problems.append(str(error))
    run.records = _read_records(folder, run.problems)
    return run


def _read_config(folder: Path, is_known: bool) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.exists() and not is_known:
        return {}  # of a run that somebody has copied no more than the table of
    text = session.read_config(folder)
    try:
        content: Any = yaml.load(text, _LOADER)
    except (yaml.YAMLError, ValueError, RecursionError):
        content = None
    else:
        content = {} if content is None and text.strip() else content  # a comment: it was started from Python
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: how the run was made is not known.")
    return content


def _read_records(folder: Path, problems: list[str]) -> list[Record]:
    """Those of the table; where it is damaged, or differs from the trainings' own result.json, these."""
    path, wrong = folder / TABLE, None
    records: list[Record] = []
    try:
        records, wrong = read_table(path)
    except FileNotFoundError:
        pass
    except UnicodeDecodeError:
        wrong = f"{path} is damaged: it is no text."
    except OSError as error:
        wrong = unreadable(path, error)
    by_order = {record.order: record for record in records}
    own = read_records(folder, problems)
    lacking = [record for record in own if record.order not in by_order]
    other = [record for record in own if by_order.get(record.order, record) != record]
    if not wrong and other:
        result = Training(*other[0].order, folder).folder / RESULT
        wrong = f"{path} is damaged: it differs from {result}."
    # While the run goes on, its table is behind by a moment.
    if not wrong and lacking and not is_owned(folder):
        wrong = (
            f"{path} has {len(records)} of {len(own) + len(set(by_order) - {r.order for r in own})} finished trainings."
        )
    lost = [Training(*order, folder).folder / RESULT for order in by_order if order not in {r.order for r in own}]
    # A table that somebody has copied alone has no results beside it.
    problems += [
        f"{result} is missing: {path.name} tells its numbers." for result in lost if own and not result.exists()
    ]
    if wrong and (lacking or other):
        problems.append(f"{wrong} Each training's result.json is used instead; `lth fit --resume` mends it.")
    elif wrong:
        problems.append(f"{wrong} The {len(records)} rows that are whole are used.")
    merged = by_order | ({record.order: record for record in own} if wrong else {})
    return sorted(merged.values(), key=lambda record: record.order)


def _spreads(curves: pd.DataFrame, trained: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """`Run.curve_spreads` of a run's curves, and of the rows of its table that did not diverge."""
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

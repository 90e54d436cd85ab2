"""The curves of a run's trainings, from their metrics.csv."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lth_lightning.errors import UserError
from lth_lightning.files import read_pt
from lth_lightning.place import place_of
from lth_lightning.report.runs import Run
from lth_lightning.results.record import OK, Record
from lth_lightning.results.run_folder import CHECKPOINT, METRICS, RESULT, is_owned, training_folders
from lth_lightning.results.training import TICKET


def add_curves(run: Run, tick: Callable[[], None] = lambda: None) -> None:
    """Read the curves of all finished trainings into `run.curves`, and note the unfinished ones.

    What is damaged is left out and named in `run.problems`. `tick` is called after each training.
    """
    known = {(r.replicate, r.label, r.level): r for r in run.records}
    curves = []
    for folder in training_folders(run.folder, []):
        tick()
        place = place_of(folder)
        key = int(place["replicate"]), folder.parent.name, int(place["level"])
        record = known.get(key)
        is_finished = (folder / RESULT).is_file()
        if not (folder / METRICS).exists():
            # A level that has not begun has a mask alone.
            if is_finished or ((folder / CHECKPOINT).exists() and not is_owned(run.folder)):
                run.problems.append(f"{folder / METRICS} is missing: the curve is left out.")
            continue
        try:
            curve = _read_curve(folder / METRICS, is_finished)
        except OSError as error:
            run.problems.append(f"{folder / METRICS} cannot be read ({error.strerror}): the curve is left out.")
            continue
        except ValueError as error:
            run.problems.append(f"{folder / METRICS} is damaged ({error}): the curve is left out.")
            continue
        if record is None:
            if not is_finished:
                name = f"replicate {key[0]} {key[1]} level {key[2]}"
                run.unfinished[name] = int(curve.step.iloc[-1]) if len(curve) else 0
                if not is_owned(run.folder) and not (folder / METRICS).read_text().startswith(_kept_curve(folder)):
                    run.problems.append(
                        f"{folder / METRICS} is not what {CHECKPOINT} beside it has of it: --resume puts it back."
                    )
            continue
        if record.status == OK and (wrong := _disagreement(curve, record, run)):
            run.problems.append(f"{folder / METRICS} {wrong}: the curve is left out.")
            continue
        curve["replicate"], curve["arm"], curve["trial"], curve["level"] = record.order
        curves.append(curve)
    if curves:
        run.curves = pd.concat(curves, ignore_index=True)
        run.curves["arm"] = run.curves.arm.astype("category")


def _kept_curve(folder: Path) -> str:
    """What the checkpoint of an interrupted training holds of its metrics.csv; empty where none can be read."""
    with contextlib.suppress(UserError, AttributeError, TypeError):
        states = read_pt(folder / CHECKPOINT)["callbacks"].values()
        return next((str(state["metrics"]) for state in states if "metrics" in state), "")
    return ""


def _read_curve(path: Path, is_finished: bool) -> pd.DataFrame:
    """The rows of a metrics.csv, an infinite value as NaN; raises ValueError, whose text says what is wrong with it."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None
    whole = text[: text.rfind("\n") + 1]
    if is_finished and whole != text:
        raise ValueError("its last line is not whole")
    if not whole:
        if not is_finished and (path.parent / CHECKPOINT).exists():
            raise ValueError("it is empty")
        return pd.DataFrame(columns=["step"])
    try:
        curve = pd.read_csv(io.StringIO(whole))
    except pd.errors.ParserError:
        raise ValueError("a row has more cells than columns are named") from None
    if list(curve.columns[:1]) != ["step"]:
        raise ValueError("its first line does not name the columns")
    if curve.empty:  # of a training that has just begun: pandas makes no numbers of no rows
        return curve.astype(float)
    if not all(pd.api.types.is_numeric_dtype(kind) for kind in curve.dtypes) or curve.step.isna().any():
        raise ValueError("a cell is no number")
    if not (curve.step.diff()[1:] > 0).all():
        raise ValueError("its steps do not rise")
    return curve.replace([np.inf, -np.inf], np.nan)  # which results.csv leaves empty too, and no axis can hold


def _first_step(run: Run, record: Record) -> int:
    """The last step that a training can begin at."""
    return 0 if (record.arm, record.level) == (TICKET, 0) else int(run.setting("pruning.rewind_step") or 0)


def _disagreement(curve: pd.DataFrame, record: Record, run: Run) -> str:
    """What shows that a finished training's curve is not whole, or not its own; empty where nothing does."""
    if _is_short(curve, record.steps):
        return f"ends before step {record.steps}"
    steps = [step for step in (0, _first_step(run, record)) if step < curve.step.iloc[0]][-1:] + list(curve.step)
    distances = np.diff(steps)
    # Lost rows leave a gap of several evaluations; an accumulation that grows makes others.
    usual = np.median(distances) if len(distances) else 0
    if len(distances) > 2 and ((distances > usual) & (distances % usual == 0)).any():
        return "lacks rows"
    if "val_loss" in curve:
        losses = dict(zip(curve.step, curve.val_loss, strict=True))
        points = [(record.early_stop_step, record.early_stop_val_loss)]
        if _ends_as_its_curve(run):
            points.append((record.steps, record.final_val_loss))
        for step, loss in points:
            if step is None or loss is None or (step in losses and np.isnan(losses[step])):
                continue
            if not np.isclose(losses.get(step, np.nan), loss, rtol=1e-6):
                return f"is not this training's: its result has another validation loss at step {step}"
    return ""


def _ends_as_its_curve(run: Run) -> bool:
    """Whether nothing changes the weights after the last evaluation, as a user's module or callback may."""
    model = run.config.get("model")
    path = model.get("class_path") if isinstance(model, dict) else None
    return str(path).startswith("lth_lightning.") and not run.setting("trainer.callbacks")


def _is_short(curve: pd.DataFrame, steps: int) -> bool:
    """Whether an evaluation or more is missing at the end, by the distance of the first ones."""
    if curve.empty:
        return True
    distance = curve.step.iloc[1] - curve.step.iloc[0] if len(curve) > 1 else max(1, steps)
    return bool(steps - curve.step.iloc[-1] >= distance)

"""The one display of a run, owned by the driver: bars on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from lth_lightning.callbacks.trainer import is_rank_zero
from lth_lightning.results.record import DIVERGED, Record
from lth_lightning.results.training import Training


class Display:
    """Shows replicate, arm, level, density, the level's own progress, and an estimate for the whole run.

    Args:
        console: where to; standard output by default.
        enabled: False shows nothing.
        has_bars: False leaves the bars to Lightning, also on a terminal.
    """

    def __init__(self, console: Console | None = None, enabled: bool = True, has_bars: bool = True) -> None:
        self.has_bars = has_bars
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = 120  # of a file or a pipe, where 80 would be assumed
        self._enabled = enabled
        self._bars: Progress | None = None
        self._run: TaskID | None = None
        self._levels: list[TaskID] = []
        self._told: set[str] = set()
        self._trainings = self._done = 0
        self._began = 0.0
        self._seen = 0  # of this session
        self._steps, self._at_once = [0], [1]
        self._parts = [0.0]

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._enabled:
            # Words are wrapped for a terminal; a file gets the line as it is.
            self.console.print(text, soft_wrap=not self.console.is_terminal, markup=False, emoji=False)

    def say(self, line: str) -> None:
        """A line of somebody's own as it is, also where nothing else is shown."""
        self.console.out(line, highlight=False)

    def tell(self, text: str) -> None:
        """A line that stays, and is not said twice."""
        if text not in self._told and is_rank_zero():
            self._told.add(text)
            self.note(text)

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Says within it what takes its time: on a terminal until it ends, elsewhere in a line, once."""
        if not self.console.is_terminal:
            self.tell(text)
        with self.console.status(text) if self._enabled and self.console.is_terminal else contextlib.nullcontext():
            yield

    def start(self, trainings: int, done: int, slots: int = 1) -> None:
        """A run of so many trainings begins, or goes on with some `done`; `slots` of them are made side by side."""
        self._trainings, self._done, self._began, self._seen = trainings, done, time.monotonic(), 0
        self._steps, self._at_once, self._parts = [0] * slots, [1] * slots, [0.0] * slots
        if self._enabled and self.has_bars and self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[info]}"),
                console=self.console, refresh_per_second=4, transient=True,
            )  # fmt: skip
            self._run = self._bars.add_task("trainings", total=trainings, completed=done, info="")
            self._levels = [self._bars.add_task("steps", total=None, info="") for _ in range(slots)]
            self._bars.start()

    def begin(self, what: str, density: float, steps: int | None, slot: int = 0, trainings: int = 1) -> None:
        """A training, or several at once, begin in a slot; `steps` is the length of each where it is known."""
        self._steps[slot], self._at_once[slot] = steps or 0, trainings
        if self._bars:
            self._bars.reset(self._levels[slot], total=steps, description=f"{what}, {density:.1%}", info="")

    def step(self, step: int, row: Mapping[str, float | int | None] | None = None, slot: int = 0) -> None:
        """A slot's training is at `step`, with the evaluation `row` where there is a new one."""
        self._parts[slot] = self._at_once[slot] * step / self._steps[slot] if self._steps[slot] else 0
        if self._bars and self._run is not None:
            self._bars.update(self._levels[slot], completed=step)
            if row and row.get("val_acc") is not None:
                self._bars.update(self._levels[slot], info=f"val acc {row['val_acc']:.2%}")
            self._bars.update(self._run, info=self._left())

    def end(self, record: Record, training: Training, slot: int = 0) -> None:
        """A slot's training is recorded."""
        self._done += 1
        self._seen += 1
        self._parts[slot] = max(0.0, self._parts[slot] - 1)
        if self._bars and self._run is not None:
            self._bars.update(self._run, completed=self._done, info=self._left())
        left = "" if self._bars else self._left_line()  # the bars say it
        self.note(f"[{self._done}/{self._trainings}] {training}: {_outcome(record)}{left}")

    def skip(self, count: int) -> None:
        """So many trainings will not be made."""
        self._trainings -= count
        if self._bars and self._run is not None:
            self._bars.update(self._run, total=self._trainings)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._bars:
            self._bars.stop()
            self._bars = None

    def _left(self) -> str:
        """The time left, judging by the trainings of this session."""
        parts = sum(self._parts)
        if self._seen + parts < 0.2:
            return ""
        left = (time.monotonic() - self._began) / (self._seen + parts) * (self._trainings - self._done - parts)
        return f"about {duration(left)} left"

    def _left_line(self) -> str:
        return f", {self._left()}" if self._done < self._trainings else ""


def _outcome(record: Record) -> str:
    parts = [f"{record.density:.1%} of weights"]
    if record.status == DIVERGED:
        parts.append(f"diverged after {record.steps} steps")
    if record.early_stop_step is not None:
        parts.append(f"early stop at step {record.early_stop_step}")
    if record.early_stop_test_acc is not None:
        parts.append(f"test accuracy there {record.early_stop_test_acc:.2%}")
    if record.final_test_acc is not None:
        parts.append(f"at the end {record.final_test_acc:.2%}")
    if record.seconds is not None:
        parts.append(duration(record.seconds))
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {small}"
    return f"{whole} s"

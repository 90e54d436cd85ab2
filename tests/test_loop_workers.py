"""Worker processes: the same results however many there are, and nothing is lost or left over when one fails."""

import contextlib
import csv
import ctypes
import functools
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from loop_helpers import RATES, OwnModule, SmallData, WithLoaders, go, make_trainer
from pytorch_lightning.strategies import SingleDeviceStrategy
from rich.console import Console
from runs import PATIENCE, Starter, advised, assert_same_run, environment, wait_for
from test_cli_errors import complaint
from test_loop_resume import Noisy
from test_loop_runs import found, poisoned
from test_resume_kill import age_events
from test_signals import HIDE_CURSOR, SHOW_CURSOR, Terminal

from lth_lightning import machine
from lth_lightning.callbacks import Display, PruningLoop, RandomMask, RandomReinit
from lth_lightning.callbacks.crew import WorkerDiedError
from lth_lightning.callbacks.maker import Maker
from lth_lightning.cli import main
from lth_lightning.data import Digits
from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300
from lth_lightning.results.record import OK, Record
from lth_lightning.results.training import Training

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are for Linux")

LOOP: dict[str, Any] = {"levels": 1, "replicates": 2, "rates": RATES, "evaluate_every": 5}
OWN: dict[str, Any] = {**LOOP, "rates": {"conv": 0.2, "output": 0.1}}


def side_by_side(workers: int, **settings: Any) -> PruningLoop:
    """A loop whose `run` has so many workers."""
    loop = PruningLoop(**settings)
    loop.run = functools.partial(loop.run, workers=workers)  # type: ignore[method-assign]
    return loop


# Which processes there are.


def _processes() -> Iterator[tuple[int, int, str]]:
    """Process, parent and state of all that are alive."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                yield int(path.parent.name), int(parent), state


def children(parent: int) -> set[int]:
    return {process for process, its_parent, _ in _processes() if its_parent == parent}


def alive(processes: set[int]) -> set[int]:
    return {process for process, _, _ in _processes()} & processes


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """After whatever a test does, this process has the children that it had."""
    before = children(os.getpid())
    yield
    assert children(os.getpid()) <= before


# What can happen in a worker.


class ThreePartsError(Exception):
    """Can be pickled, but not be made again from that."""

    def __init__(self, first: str, second: int, third: int) -> None:
        super().__init__(first)


def is_killed() -> None:
    print("these were my last words")
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_silently() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def gets_a_nameless_signal() -> None:
    os.kill(os.getpid(), signal.SIGRTMIN + 4)


def gets_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def crashes() -> None:
    ctypes.string_at(0)


def exits() -> None:
    print("a complaint", file=sys.stderr)
    os._exit(3)


def is_killed_beside_its_child() -> None:
    print(f"I leave child {subprocess.Popen(['sleep', '8']).pid}")
    os.kill(os.getpid(), signal.SIGKILL)


def stalls() -> None:
    time.sleep(60)


def is_the_users_mistake() -> None:
    raise UserError("Mend this and that.")


def breaks() -> None:
    raise ValueError("theirs")


def breaks_after_words() -> None:
    print("before the end")
    raise ValueError("theirs")


def breaks_with_an_exception_of_three_parts() -> None:
    raise ThreePartsError("theirs", 2, 3)


def breaks_with_a_local_exception() -> None:
    class LocalError(Exception):
        pass

    raise LocalError("theirs")


def breaks_with_a_tensor() -> None:
    raise ValueError("theirs", torch.zeros(3))


def talks() -> None:
    print("on standard output")
    print("on standard error", file=sys.stderr)
    os.system("echo by a process of its own; echo on its standard error >&2")


def says_something_odd() -> None:
    print("epoch :100: [bold]done[/]")


def leaves_a_line_open() -> None:
    print("without an end", end="")


def says_hello() -> None:
    print("hello")


class Fate(pl.Callback):
    """Has something happen once in each of some trainings, when `step` steps are done; `folder` keeps a mark of it."""

    def __init__(self, what: str, folder: str, trainings: list[str], step: int = 10) -> None:
        self.what, self.folder, self.trainings, self.step = what, Path(folder), trainings, step

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        training = next((name for name in self.trainings if str(trainer.log_dir).endswith(name)), None)
        if training is None or trainer.global_step < self.step:
            return
        with contextlib.suppress(FileExistsError):
            self.mark(training).touch(exist_ok=False)
            globals()[self.what]()

    def mark(self, training: str) -> Path:
        return self.folder / training.replace("/", "-")


FIRST, SECOND = "replicate_0/ticket/level_00", "replicate_0/ticket/level_01"
STALLED = (SECOND, "replicate_1/ticket/level_01")
"""Two trainings that are made at the same time."""


def fated(
    what: Callable[[], None], folder: Path, *trainings: str, step: int = 10
) -> Callable[[Any], list[pl.Callback]]:
    return lambda _: [Fate(what.__name__, str(folder), list(trainings or (FIRST,)), step)]


def screen() -> tuple[Display, io.StringIO]:
    text = io.StringIO()
    return Display(Console(file=text, width=200, highlight=False)), text


class BusyDisplay(Display):
    """Keeps the parent busy from the first training's beginning until what happens at its step 0 has happened."""

    def __init__(self, folder: Path) -> None:
        self.text = io.StringIO()
        self.mark = Fate("", str(folder), []).mark(FIRST)
        super().__init__(Console(file=self.text, width=200, highlight=False))

    def begin(self, what: str, *arguments: Any, **options: Any) -> None:
        super().begin(what, *arguments, **options)
        if what == "replicate 0 ticket level 0":
            wait_for(self.mark.exists)
            time.sleep(0.3)


# The same results.

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "controls and trials, one at level 0": (
        {**LOOP, "levels": 2, "controls": [RandomReinit(trials=2), RandomMask(levels=[0, 1])], "save_controls": True},
        {},
    ),
    "rewinding to step 7": ({**LOOP, "levels": 2, "rewind_step": 7, "controls": [RandomReinit(levels="0-1")]}, {}),
    "one-shot": ({**LOOP, "levels": 2, "one_shot": True, "save_early_stop": True, "test_curve": True}, {}),
    "somebody's own module and shuffling loader": (
        {**OWN, "rewind_step": 5, "controls": [RandomMask()]},
        {"model": lambda: OwnModule(epoch_schedule=True), "data": SmallData()},
    ),
    "loaders of the module's own": (OWN, {"model": WithLoaders, "own_data": True, "steps": 13}),
}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a case with one worker and one thread."""
    assert torch.get_num_threads() == 1

    @functools.cache
    def make(case: str) -> Path:
        logs = tmp_path_factory.mktemp("whole")
        settings, arguments = CASES[case]
        go(logs, settings, **arguments)
        return logs / "run" / "version_0"

    return make


def assert_same_bytes(run: Path, expected: Path) -> None:
    """Every file, and the curves that TensorBoard shows, but for wall times."""
    assert_same_run(run, expected)
    kept = [path for path in expected.rglob("*") if path.suffix == ".pt" or path.name == "metrics.csv"]
    assert {path.name for path in kept} == {"mask.pt", "trained.pt", "rewind.pt", "metrics.csv"}
    for path in kept:
        assert (run / path.relative_to(expected)).read_bytes() == path.read_bytes(), path
    # As text, too: the way a number is written is part of the table.
    ours, theirs = ((folder / "results.csv").read_text().splitlines() for folder in (run, expected))
    assert [line.rpartition(",")[0] for line in ours] == [line.rpartition(",")[0] for line in theirs]
    assert next(csv.reader(ours))[-1] == "seconds"


@pytest.mark.parametrize(
    ("case", "workers"), [*((case, 2 + index % 2) for index, case in enumerate(CASES)), (next(iter(CASES)), 3)]
)
def test_however_many_workers_give_the_same_bytes(
    tmp_path: Path, one_by_one: Callable[[str], Path], case: str, workers: int
) -> None:
    settings, arguments = CASES[case]
    expected = one_by_one(case)
    records = go(tmp_path, side_by_side(workers, **settings), **arguments)
    assert_same_bytes(tmp_path / "run" / "version_0", expected)
    again = go(tmp_path, settings, folder=tmp_path / "run" / "version_0", **arguments)
    assert [vars(record) for record in records] == [vars(record) for record in again]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_diverges_stops_the_same_trainings(tmp_path: Path, workers: int) -> None:
    settings = {**LOOP, "levels": 2, "controls": [RandomReinit()]}
    bad = ((0, "ticket", 1), (1, "random_reinit", 1))
    display, text = screen()
    go(tmp_path, side_by_side(workers, **settings), callbacks=poisoned(*bad), display=display)
    assert found(tmp_path / "run" / "version_0") == [
        (0, "random_reinit", 1, "ok"),
        (0, "ticket", 0, "ok"),
        (0, "ticket", 1, "diverged"),
        (1, "random_reinit", 1, "diverged"),
        *((1, "ticket", level, "ok") for level in (0, 1, 2)),
    ]
    lines = [line for line in text.getvalue().splitlines() if line.startswith("[")]
    assert lines[-1].startswith("[7/7]")
    assert len(list((tmp_path / "run" / "version_0").glob("replicate_*/*/level_*"))) == 7


# How many there are.


class Census(pl.Callback):
    """Writes down which process trains, and how many its parent has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        siblings = len(children(os.getppid())) if os.getpid() != PARENT else 0
        (self.folder / f"{os.getpid()}.{siblings}").touch()


PARENT = os.getpid()


@pytest.mark.parametrize(
    ("settings", "workers", "count"),
    [
        ({"replicates": 3}, 2, 2),
        ({"replicates": 2}, 9, 2),
        ({"replicates": 1, "controls": [RandomReinit(levels=[1])]}, 9, 2),
        ({"replicates": 1}, 9, 0),
    ],
)
def test_no_more_workers_are_started_than_there_are_lines(
    tmp_path: Path, settings: dict[str, Any], workers: int, count: int
) -> None:
    before = len(children(os.getpid()))
    census = tmp_path / "census"
    census.mkdir()
    loop = side_by_side(workers, **{**LOOP, **settings})
    go(tmp_path, loop, callbacks=lambda _: [Census(census)])
    seen = [tuple(map(int, path.name.split("."))) for path in census.iterdir()]
    assert {number for _, number in seen} == ({count + before} if count else {0})
    assert (os.getpid() in {process for process, _ in seen}) == (count == 0)


def threads_seen(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[], set[str]]:
    """Trains nothing; the result gives the numbers of threads with which a training would have been made."""

    def make(self: Maker, training: Training, display: Display, resume: bool) -> Record:
        (folder / f"threads_{torch.get_num_threads()}").touch()
        return Record(*training.order, OK, 100, 50, 0.5, 20)

    monkeypatch.setattr(Maker, "make", make)
    return lambda: {path.name for path in folder.glob("threads_*")}


@pytest.fixture
def _one_thread_afterwards() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_one_thread_afterwards")
@pytest.mark.parametrize("replicates", [2, 1], ids=["two lines", "one line, so no worker"])
def test_trainings_have_the_threads_that_config_yaml_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicates: int
) -> None:
    seen = threads_seen(monkeypatch, tmp_path)
    config = str(Starter(tmp_path).config("told", {**CONFIG, "threads": 2}))
    words = ["--workers", "2", "--replicates", str(replicates), "--pruning.controls", "[]"]
    assert main(["fit", "--config", config, *words]) == 0
    assert yaml.safe_load((tmp_path / "logs/told/version_0/config.yaml").read_text())["threads"] == 2
    assert seen() == {"threads_2"}


def two_threads_each(logs: str) -> None:
    """In a process of its own, whose torch has more threads by default."""
    assert torch.get_num_threads() == 2
    wide = lambda: LeNet300(shape=(1, 8, 8), hidden=(300, 100))  # noqa: E731
    loop = PruningLoop(**LOOP)
    loop.run(lambda _: make_trainer(10), wide, Digits(), logs=logs, workers=2, threads=2)


def test_workers_may_have_several_threads_in_a_fresh_process(tmp_path: Path) -> None:
    """What the run itself does before it forks must not start torch's pool of threads, which no fork copies."""
    code = f"import test_loop_workers; test_loop_workers.two_threads_each({str(tmp_path)!r})"
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment(OMP_NUM_THREADS="2"), capture_output=True, check=True, timeout=PATIENCE)
    assert len(found(tmp_path / "run" / "version_0")) == 4


# A worker that dies.

LAST_WORDS = [
    (
        is_killed,
        "was ended by SIGKILL (where memory is short, fewer --workers need less). "
        "Its last words: these were my last words.",
    ),
    (exits, "ended with exit code 3. Its last words: a complaint."),
]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        *LAST_WORDS,
        (is_killed_silently, "was ended by SIGKILL (where memory is short, fewer --workers need less). It printed"),
        (gets_a_nameless_signal, f"ended by signal {signal.SIGRTMIN + 4}"),
        (crashes, "was ended by SIGSEGV. Its last words: Fatal Python error: Segmentation fault."),
    ],
)
def test_of_a_worker_that_dies_it_is_told_what_it_made_how_it_ended_and_what_it_said(
    tmp_path: Path, what: Callable[[], None], told: str
) -> None:
    display, text = screen()
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # as the end of a plain Lightning fit does
    with pytest.raises(WorkerDiedError) as error:
        go(tmp_path, side_by_side(2, **LOOP), callbacks=fated(what, tmp_path), display=display)
    line = str(error.value)
    assert line.startswith("The process that made replicate 0 ticket level 0 ")
    assert told in line
    assert "\n" not in line
    assert line in text.getvalue()
    # The other replicate is finished.
    assert found(tmp_path / "run" / "version_0") == [(1, "ticket", 0, "ok"), (1, "ticket", 1, "ok")]


def test_what_was_said_in_an_earlier_training_are_no_last_words(tmp_path: Path) -> None:
    class Both(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            print("all is well") if str(trainer.log_dir).endswith("level_00") else is_killed_silently()

    with pytest.raises(WorkerDiedError) as error:
        go(tmp_path, side_by_side(2, **LOOP), callbacks=lambda _: [Both()])
    assert "level 1 was ended by SIGKILL" in str(error.value)
    assert "all is well" not in str(error.value)


def test_a_process_that_a_dead_worker_leaves_does_not_hold_up_the_run(tmp_path: Path) -> None:
    display = BusyDisplay(tmp_path)
    callbacks = fated(is_killed_beside_its_child, tmp_path, step=0)
    with pytest.raises(WorkerDiedError, match="I leave child") as error:
        go(tmp_path, side_by_side(2, **LOOP), callbacks=callbacks, display=display)
    words = re.search(r"I leave child (\d+)", str(error.value))
    assert words
    assert words[0] in display.text.getvalue().splitlines()
    assert alive({int(words[1])}), "waited for the child of the dead worker"
    os.kill(int(words[1]), signal.SIGKILL)


def test_ctrl_c_is_no_business_of_a_workers(tmp_path: Path) -> None:
    display, text = screen()
    try:
        go(tmp_path, side_by_side(2, **LOOP), callbacks=fated(gets_ctrl_c, tmp_path), display=display)
    except KeyboardInterrupt:  # which would end the tests
        pytest.fail("a worker took it")
    assert len(found(tmp_path / "run" / "version_0")) == 4
    assert "Traceback" not in text.getvalue()


# An exception in a worker.


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (is_the_users_mistake, UserError, "^Mend this and that.$"),
        (breaks, ValueError, r"^theirs\nThis happened in replicate \d ticket level 0\.$"),
        (breaks_with_an_exception_of_three_parts, Exception, "ThreePartsError: theirs"),
        (breaks_with_a_local_exception, Exception, "LocalError: theirs"),
        (breaks_with_a_tensor, ValueError, "theirs"),
    ],
)
def test_an_exception_in_a_worker_surfaces_with_where_it_arose(
    tmp_path: Path, what: Callable[[], None], kind: type[Exception], message: str
) -> None:
    loop = side_by_side(2, **LOOP)
    with pytest.raises(kind, match=message) as error:
        go(tmp_path, loop, callbacks=fated(what, tmp_path, step=0), display=BusyDisplay(tmp_path))
    assert f"in {what.__name__}\n" in "".join(traceback.format_exception(error.value))
    # The next run of this process has workers of its own, and goes on.
    go(tmp_path, loop, callbacks=fated(what, tmp_path), folder=loop.folder)
    assert len(found(tmp_path / "run" / "version_0")) == 4


def test_a_run_whose_loaders_have_processes_ends_and_goes_on(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"model": OwnModule, "data": Noisy(), "steps": 12}
    go(tmp_path / "whole", OWN, **arguments)
    stalling, broken = Fate("stalls", str(tmp_path), [STALLED[1]], step=5), tmp_path / "broken"

    class BreaksBesideIt(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if str(trainer.log_dir).endswith(STALLED[0]) and not broken.exists():
                wait_for(stalling.mark(STALLED[1]).exists)
                broken.touch()
                breaks()

    arguments["callbacks"] = lambda _: [stalling, BreaksBesideIt()]
    with pytest.raises(ValueError, match="theirs"):
        go(tmp_path, side_by_side(2, **OWN), **arguments)
    run = tmp_path / "run" / "version_0"
    go(tmp_path, side_by_side(2, **OWN), folder=run, **arguments)
    assert_same_run(run, tmp_path / "whole" / "run" / "version_0")


# What a worker says.


@pytest.mark.parametrize("enabled", [True, False], ids=["with a display", "without one"])
def test_what_a_module_says_in_a_worker_appears(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], enabled: bool
) -> None:
    go(tmp_path, side_by_side(2, **LOOP), callbacks=fated(talks, tmp_path), display=Display(enabled=enabled))
    captured = capfd.readouterr()
    assert captured.err == ""
    for words in ("on standard output", "on standard error", "by a process of its own", "on its standard error"):
        assert captured.out.splitlines().count(words) == 1, words


def test_what_a_module_says_is_not_changed(tmp_path: Path) -> None:
    display, text = screen()
    go(tmp_path, side_by_side(2, **LOOP), callbacks=fated(says_something_odd, tmp_path), display=display)
    assert "epoch :100: [bold]done[/]" in text.getvalue().splitlines()


def test_a_line_that_is_left_open_appears_too(tmp_path: Path) -> None:
    display, text = screen()
    go(tmp_path, side_by_side(2, **LOOP), callbacks=fated(leaves_a_line_open, tmp_path), display=display)
    assert "without an end" in text.getvalue()


def test_what_a_module_says_before_it_fails_appears_also_where_the_parent_is_busy(tmp_path: Path) -> None:
    display = BusyDisplay(tmp_path)
    with pytest.raises(ValueError, match="theirs"):
        go(tmp_path, side_by_side(2, **LOOP), callbacks=fated(breaks_after_words, tmp_path, step=0), display=display)
    assert "before the end" in display.text.getvalue().splitlines()


def test_a_thread_that_a_module_leaves_behind_is_waited_for(tmp_path: Path) -> None:
    """As Python does at its end: somebody's logger may still be writing."""

    class Late(pl.Callback):
        def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            path = tmp_path / f"late_{len(list(tmp_path.glob('late_*')))}_{os.getpid()}"
            path.touch()
            threading.Thread(target=lambda: (time.sleep(0.5), path.write_text("written"))).start()

    go(tmp_path, side_by_side(2, **LOOP), callbacks=lambda _: [Late()])
    assert {path.read_text() for path in tmp_path.glob("late_*")} == {"written"}


# The display.


def shown(text: str) -> list[str]:
    """The lines that a terminal shows after `text`, by a small terminal of our own."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b["):
            if part.endswith("A"):
                row -= int(part[2:-1])
            elif part == "\x1b[2K":
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[Display, io.StringIO]:
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    return Display(Console(file=text, force_terminal=True, width=120, highlight=False)), text


def test_a_terminal_has_a_bar_for_each_worker_and_none_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    display, text = a_terminal(monkeypatch)
    first, second = Training(0, "ticket", 0, 1, Path()), Training(1, "random_reinit", 2, 1, Path())
    display.start(6, 1, slots=3)
    display.begin(str(first), 0.8, 20, slot=0)
    display.begin(str(second), 0.5, 20, slot=2)
    display.step(5, {"val_acc": 0.25}, slot=0)
    display.step(10, {"val_acc": 0.75}, slot=2)
    display.note("a line that stays")

    def bars() -> list[str]:
        return [re.sub(r" +[━╸╺]+ +", " ", line) for line in shown(text.getvalue())]

    assert wait_for(lambda: len(bars()) == 5 and "75.00%" in bars()[4])
    assert bars()[0] == "a line that stays"
    assert re.match(r"trainings +1/6", bars()[1])
    assert re.match(r"replicate 0 ticket level 1, 80.0% +5/20 +val acc 25.00%", bars()[2])
    assert re.match(r"steps +0/\?", bars()[3])
    assert re.match(r"replicate 1 random_reinit_2 level 1, 50.0% +10/20 +val acc 75.00%", bars()[4])
    display.end(Record(*second.order, OK, 100, 50, 0.5, 20), second, slot=2)
    display.skip(2)
    assert wait_for(lambda: re.match(r"trainings +2/4", bars()[2]))
    display.stop()
    done = "[2/6] replicate 1 random_reinit_2 level 1: 50.0% of weights"
    assert shown(text.getvalue()) == ["a line that stays", done]
    assert text.getvalue().rindex(SHOW_CURSOR) > text.getvalue().rindex(HIDE_CURSOR)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_on_a_terminal_leaves_its_lines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    display, text = a_terminal(monkeypatch)
    callbacks = fated(breaks if fails else says_hello, tmp_path, SECOND)
    with pytest.raises(ValueError, match="theirs") if fails else contextlib.nullcontext():
        go(tmp_path / "logs", side_by_side(2, **LOOP), callbacks=callbacks, display=display)
    assert "trainings" in text.getvalue()
    lines = "".join(shown(text.getvalue()))
    beside = "2 trainings side by side, CPU threads of each: 1"
    said = "" if fails else "hello"
    begun = f"run: {tmp_path / 'logs' / 'run' / 'version_0'}network: LeNet300, data: Digits{beside}"
    assert lines.startswith(begun)
    assert fails or said in lines
    others = re.sub(r"\[\d/4\] replicate \d \w+ level \d: .*? [\d.]+ s", "", lines.replace(begun, "").replace(said, ""))
    assert others == ""
    assert text.getvalue().rindex(SHOW_CURSOR) > text.getvalue().rindex(HIDE_CURSOR)


# The command.

CONFIG: dict[str, Any] = {
    "seed_everything": 4,
    "threads": 1,
    "data": "Digits",
    "model": {"class_path": "LeNet300", "init_args": {"hidden": [16, 8], "dropout": 0.3}},
    "trainer": {"max_steps": 20, "accelerator": "cpu"},
    "pruning": {
        "levels": 2,
        "replicates": 2,
        "evaluate_every": 5,
        "checkpoint_every": 5,
        "controls": [{"class_path": "RandomReinit", "init_args": {"levels": [1]}}],
    },
}
OPEN = {key: value for key, value in CONFIG.items() if key != "threads"}


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("workers"))
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def whole(starter: Starter) -> Path:
    """A run of CONFIG, one by one, that nothing disturbs."""
    assert main(["fit", "--config", str(starter.config("whole", CONFIG)), "--workers", "1"]) == 0
    return starter.run("whole")


def disturbed(starter: Starter, name: str, what: Callable[[], None], *trainings: str) -> tuple[list[str], Fate]:
    """The words of a run of CONFIG in which something happens."""
    (starter.folder / name).mkdir()
    arguments = {"what": what.__name__, "folder": str(starter.folder / name), "trainings": list(trainings)}
    callback = {"class_path": "test_loop_workers.Fate", "init_args": arguments}
    trainer = {**CONFIG["trainer"], "callbacks": [callback]}
    return ["fit", "--config", str(starter.config(name, {**CONFIG, "trainer": trainer}))], Fate(**arguments)


def assert_goes_on(run: Path, expected: Path, workers: int) -> None:
    """The run is finished with so many workers, and is like the expected one."""
    age_events(run)
    assert main(["fit", "--resume", str(run), "--workers", str(workers)]) == 0
    assert_same_run(run, expected)


@pytest.mark.parametrize(
    ("what", "told"),
    LAST_WORDS,
)
def test_the_command_finishes_what_a_dead_worker_does_not_hold_up_and_can_go_on(
    starter: Starter, whole: Path, capsys: pytest.CaptureFixture[str], what: Callable[[], None], told: str
) -> None:
    words, _ = disturbed(starter, what.__name__, what, SECOND)
    run = starter.run(what.__name__)
    line = complaint(capsys, [*words, "--workers", "2"])
    assert line.startswith(f"lth: The process that made replicate 0 ticket level 1 {told} ")
    assert line.endswith(f"go on with: lth fit --resume {run}")
    lost = {(0, "ticket", 1, "ok"), (0, "ticket", 2, "ok")}
    assert set(found(run)) == set(found(whole)) - lost
    assert_goes_on(run, whole, workers=3)


def test_a_users_mistake_in_a_worker_is_one_line(starter: Starter, capsys: pytest.CaptureFixture[str]) -> None:
    words, _ = disturbed(starter, "mistaken", is_the_users_mistake, SECOND)
    assert complaint(capsys, [*words, "--workers", "2"]) == "lth: Mend this and that."


def test_another_exception_in_a_worker_is_shown_with_its_traceback(
    starter: Starter, capsys: pytest.CaptureFixture[str]
) -> None:
    words, _ = disturbed(starter, "broken", breaks, SECOND)
    assert main([*words, "--workers", "2"]) == 1
    err = capsys.readouterr().err
    assert "in breaks\n" in err
    assert "ValueError: theirs\nlth: This happened in replicate 0 ticket level 1. What is finished is kept; " in err


# Signals.


class Job:
    """The command in a process that is forked, so that it costs no start, and leads a group of its own."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.folder = folder
        self.process = get_context("fork").Process(target=self._run, args=(words,))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def _run(self, words: list[str]) -> None:
        os.setsid()
        for descriptor, name in ((1, "out"), (2, "err")):
            file = (self.folder / name).open("w", buffering=1)
            os.dup2(file.fileno(), descriptor)
            setattr(sys, f"std{name}", file)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main(words))

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def end(self) -> int:
        # Not by `join`, which waits for a pipe that the workers have inherited.
        wait_for(lambda: not self.process.is_alive())
        assert self.process.exitcode is not None
        return self.process.exitcode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.join()


@pytest.mark.parametrize(
    ("number", "whom", "code"),
    [
        (signal.SIGINT, "all", 130),
        (signal.SIGTERM, "parent", 143),
        (signal.SIGTERM, "all", 143),
        (signal.SIGKILL, "parent", -9),
    ],
)
def test_a_signal_ends_the_command_and_its_workers_and_it_can_go_on(
    starter: Starter, whole: Path, number: signal.Signals, whom: str, code: int
) -> None:
    name = f"{number.name}_{whom}"
    words, fate = disturbed(starter, name, stalls, *STALLED)
    run = starter.run(name)
    job = Job([*words, "--workers", "2"], fate.folder)
    try:
        assert wait_for(lambda: all(fate.mark(training).exists() for training in STALLED))
        workers = children(job.pid)
        assert len(workers) == 2
        assert all((run / training / "last.ckpt").exists() for training in STALLED)
        os.killpg(job.pid, number) if whom == "all" else os.kill(job.pid, number)
        assert job.end() == code
        assert wait_for(lambda: not alive(workers))
    finally:
        job.kill()
    if number != signal.SIGKILL:
        assert len(job.err.strip().splitlines()) == 1, job.err
        assert Path(advised(job.err)).resolve() == run.resolve()
    assert_goes_on(run, whole, workers=2)


def test_ctrl_c_in_a_terminal_ends_the_command_and_its_workers_and_cleans_up(starter: Starter, whole: Path) -> None:
    words, fate = disturbed(starter, "pressed", stalls, *STALLED)
    run = starter.run("pressed")
    terminal = Terminal([*words, "--workers", "2"], starter.folder)
    try:
        bars = [f"replicate {number} ticket level 1," for number in (0, 1)]
        assert wait_for(lambda: all(bar in terminal.text for bar in bars), terminal.popen), terminal.text
        assert wait_for(lambda: all(fate.mark(training).exists() for training in STALLED), terminal.popen)
        assert wait_for(lambda: all(any(bar in line for line in shown(terminal.text)) for bar in bars))
        workers = children(terminal.popen.pid)
        assert len(workers) == 2
        terminal.press_ctrl_c()
        assert terminal.end() == 130
        assert not alive(workers)
    finally:
        terminal.kill()
    lines = shown(terminal.text)
    assert lines[-1].endswith(f"lth fit --resume {run}"), lines
    assert not any(bar in line for line in lines for bar in bars)
    assert "Traceback" not in terminal.text
    assert terminal.text.rindex(SHOW_CURSOR) > terminal.text.rindex(HIDE_CURSOR)
    assert terminal.settings_after == terminal.settings
    assert_goes_on(run, whole, workers=3)


# Options.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "2", "--trainer.devices", "2"], "or --workers 1"),
        (["--workers", "0"], "--workers is 0: give 1 to 256"),
        (["--workers", "-2"], "--workers is -2: give 1 to 256"),
        (["--threads", "0"], "--threads is 0: give 1 to 1,024"),
        (["--workers", "many"], "workers"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["for real", "dry"])
def test_workers_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str, dry: list[str]
) -> None:
    config = str(Starter(tmp_path).config("refused", OPEN))
    assert told in complaint(capsys, ["fit", "--config", config, *options, *dry])
    assert [path.name for path in tmp_path.iterdir()] == ["refused.yaml"]


def test_workers_on_an_accelerator_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", torch.device("cuda", 0))
    config = str(Starter(tmp_path).config("refused", OPEN))
    assert "--trainer.accelerator cpu" in complaint(capsys, ["fit", "--config", config, "--workers", "2"])
    with pytest.raises(UserError, match=r"--trainer\.accelerator cpu"):
        go(tmp_path, side_by_side(2, **LOOP))
    assert [path.name for path in tmp_path.iterdir()] == ["refused.yaml"]


class Settled:
    """What `lth fit` asks of PruningLoop.run, which trains nothing here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        monkeypatch.setattr(PruningLoop, "run", self._run)
        monkeypatch.setattr(machine, "cores", lambda: 12)
        monkeypatch.setattr(machine, "free_bytes", lambda: None)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def _run(self, *_: Any, **options: Any) -> list[Record]:
        self.options = options
        self.own_threads = torch.get_num_threads()
        return []

    def __call__(self, *words: str) -> tuple[int, int | None, int]:
        """Workers, the threads of each by config.yaml, and this process's own."""
        config = str(Starter(self.folder).config("settled", OPEN))
        assert main(["fit", "--config", config, *words]) == 0
        saved = yaml.safe_load(self.options["config"])
        assert "workers" not in saved
        if saved["threads"]:
            assert self.options["threads"] == saved["threads"]
        return self.options["workers"], saved["threads"], self.own_threads


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settled]:
    yield Settled(monkeypatch, tmp_path)
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # Two replicates of a ticket and a control are four lines.
        ([], (4, 3, 1)),
        (["--replicates", "20"], (12, 1, 1)),
        (["--workers", "1"], (1, 12, 12)),
        (["--workers", "3"], (3, 4, 1)),
        (["--threads", "5"], (2, 5, 1)),
        (["--threads", "5", "--workers", "4"], (4, 5, 1)),
        (["--replicates", "1", "--pruning.controls", "[]"], (1, 12, 12)),
        (["--trainer.enable_progress_bar", "true"], (1, 12, 12)),
    ],
)
def test_cores_are_shared_out_and_config_yaml_names_the_threads(
    settled: Settled, words: list[str], expected: tuple[int, int, int]
) -> None:
    assert settled(*words) == expected


def test_the_variable_for_openmp_sets_the_threads_of_each(settled: Settled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    torch.set_num_threads(5)  # what torch makes of the variable when it is imported
    assert settled() == (2, 5, 1)


def test_a_run_on_an_accelerator_is_left_its_threads(settled: Settled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", torch.device("cuda", 0))
    torch.set_num_threads(7)
    assert settled() == (1, None, 7)
    assert settled("--threads", "3") == (1, 3, 3)


def test_the_config_of_a_run_repeats_it_bit_for_bit(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert main(["fit", "--config", str(starter.config("repeated", OPEN))]) == 0
    first = starter.run("repeated") / "config.yaml"
    assert yaml.safe_load(first.read_text())["threads"] == 1
    monkeypatch.setattr(machine, "cores", lambda: 64)
    assert main(["fit", "--config", str(first)]) == 0
    second = starter.run("repeated", 1)
    assert (second / "config.yaml").read_text() == first.read_text()
    assert_same_bytes(second, first.parent)


def test_a_dry_run_counts_on_the_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Starter(tmp_path).config("dry", CONFIG))
    for words, told in ((["--workers", "2"], ", 2 side by side,"), (["--workers", "9"], ", 4 side by side,")):
        assert main(["fit", "--config", config, "--dry-run", *words]) == 0
        assert told in capsys.readouterr().out
    assert main(["fit", "--config", config, "--dry-run", "--workers", "1"]) == 0
    assert "side by side" not in capsys.readouterr().out


def test_workers_train_where_torchs_threads_were_at_work_before_the_fork(tmp_path: Path) -> None:
    script = (
        "import torch; torch.set_num_threads(2); x = torch.randn(2000, 2000); (x @ x).sum()\n"
        "import pytorch_lightning as pl\n"
        "from lth_lightning.callbacks import PruningLoop\n"
        "from lth_lightning.data import Digits\n"
        "from lth_lightning.models import LeNet300\n"
        "records = PruningLoop(levels=0, replicates=2).run(\n"
        "    lambda training: pl.Trainer(max_steps=5, accelerator='cpu'),\n"
        "    lambda: LeNet300(shape=(1, 8, 8)), Digits(),\n"
        f"    logs={str(tmp_path)!r}, workers=2, threads=2)\n"
        "print(len(records), torch.get_num_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.splitlines()[-1] == "2 2", done.stderr


@pytest.mark.parametrize("count", [0, -1])
def test_a_run_of_no_worker_is_refused_from_python_too(tmp_path: Path, count: int) -> None:
    with pytest.raises(UserError, match="1 or more"):
        go(tmp_path, side_by_side(count, **LOOP))
    assert list(tmp_path.iterdir()) == []

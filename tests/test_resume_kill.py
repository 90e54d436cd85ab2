"""A run killed at any moment and resumed is the run that was not killed, bit for bit."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import HERE, Process, Starter, assert_same_run, environment, finished, load, scalars

CONFIG = {
    "seed_everything": 3,
    # Dropout, augmentation, a schedule of the learning rate, and a rewind step inside an evaluation interval.
    "data": {"class_path": "user_parts.Blobs", "init_args": {"validation_size": 100, "augmentation": "flip_crop"}},
    "model": {
        "class_path": "LeNet300",
        "init_args": {
            "hidden": [40, 20],
            "dropout": 0.3,
            "lr_scheduler": {
                "class_path": "lth_lightning.models.WarmupMultiStepLR",
                "init_args": {"warmup_steps": 20, "milestones": [250]},
            },
        },
    },
    "trainer": {"max_steps": 400, "accelerator": "cpu"},
    "pruning": {
        "levels": 2,
        "rewind_step": 130,
        "evaluate_every": 50,
        "checkpoint_every": 100,
        "test_curve": True,
        "save_early_stop": True,
        "controls": [{"class_path": "RandomReinit", "init_args": {"levels": [1]}}],
    },
}


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("kill"))
    yield starter
    starter.stop()


@pytest.fixture(scope="module")
def whole(starter: Starter) -> Path:
    """A run that nothing disturbs."""
    starter.finish("fit", "--config", str(starter.config("whole", CONFIG)))
    return starter.run("whole")


def found(run: Path, pattern: str) -> set[Path]:
    try:
        return set(run.glob(pattern))
    except FileNotFoundError:  # a folder went away while it was looked through
        return set()


def at_file(run: Path, pattern: str) -> Callable[[], bool]:
    """Holds once a file of `pattern` is there that is not there now."""
    before = found(run, pattern)
    return lambda: bool(found(run, pattern) - before)


def kill_when(process: Process, what: Callable[[], bool], delay: float = 0.0) -> bool:
    """Kill at that moment; False where the run ended first."""
    process.wait_for(what)
    time.sleep(delay)
    process.kill()
    return process.end() == -signal.SIGKILL


def new_run(starter: Starter, name: str) -> tuple[Process, Path]:
    process = starter.start("fit", "--config", str(starter.folder / "whole.yaml"), "--experiment", name)
    run = starter.run(name)
    assert process.wait_for((run / "config.yaml").exists), process.err
    return process, run


def resume(starter: Starter, run: Path) -> Process:
    return starter.start("fit", "--resume", str(run))


def assert_nothing_was_repeated(run: Path, before: dict[Path, tuple[bytes, int]]) -> None:
    after = finished(run)
    assert {path: after[path] for path in before} == before


@pytest.mark.thorough
def test_killed_again_and_again_when_a_file_appears_the_run_ends_the_same(starter: Starter, whole: Path) -> None:
    process, run = new_run(starter, "at_files")
    killed, done = [], {}
    moments = ("replicate_0/ticket/level_00/last.ckpt", "replicate_0/rewind.pt", "*/*/level_01/mask.pt", "*/*/*/.*.tmp")
    for index, pattern in enumerate(moments):
        if index:
            process = resume(starter, run)
        killed.append(kill_when(process, at_file(run, pattern)))
        assert_nothing_was_repeated(run, done)
        done = finished(run)
    # On a slow machine a short-lived moment can pass unseen; the first never does.
    assert killed[0]
    assert resume(starter, run).end() == 0
    assert_nothing_was_repeated(run, done)
    assert_same_run(run, whole)


@pytest.mark.thorough
def test_killed_at_random_moments_the_run_ends_the_same(starter: Starter, whole: Path) -> None:
    delays = random.Random(0)
    process, run = new_run(starter, "at_random")
    for _ in range(3):
        # From a fit's first sign on: inside a level, between two, or while something is written.
        kill_when(process, at_file(run, "replicate_0/*/*/events.*"), delays.uniform(0.0, 0.9))
        done = finished(run)
        process = resume(starter, run)
    assert process.end() == 0, process.err
    assert_nothing_was_repeated(run, done)
    assert_same_run(run, whole)


def test_resuming_a_finished_run_trains_nothing(starter: Starter, whole: Path) -> None:
    before, table, curves = finished(whole), load(whole / "results.csv"), scalars(whole / "replicate_0/ticket/level_01")
    assert resume(starter, whole).end() == 0
    assert finished(whole) == before
    assert load(whole / "results.csv") == table
    assert scalars(whole / "replicate_0/ticket/level_01") == curves


class Forks:
    """Runs without the cost of a start: see forked_runs.py."""

    def __init__(self, folder: Path) -> None:
        with (folder / "forks.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "forked_runs.py")],
                cwd=folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __call__(self, *words: str, kill: tuple[int, str] | None = None) -> tuple[int, list[str]]:
        """Exit status and the files that were written."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"words": words, "kill": kill}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["writes"]


@pytest.fixture
def forks(starter: Starter) -> Iterator[Forks]:
    forks = Forks(starter.folder)
    yield forks
    forks.process.kill()
    forks.process.wait()


def age_events(run: Path) -> None:
    """Put a minute between the sessions: TensorBoard orders event files by the second that is in their names."""
    for path in run.rglob("events.*"):
        parts = path.name.split(".")
        path.rename(path.with_name(".".join([*parts[:3], str(int(parts[3]) - 60), *parts[4:]])))


@pytest.mark.thorough
def test_killed_within_or_after_any_write_the_run_ends_the_same(starter: Starter, forks: Forks) -> None:
    """After every write, so between any two files that follow one another; and half way, once for each kind of file."""
    small = {
        **CONFIG,
        "model": {"class_path": "LeNet300", "init_args": {"hidden": [10], "dropout": 0.3}},
        "trainer": {"max_steps": 20, "accelerator": "cpu"},
        "pruning": {"levels": 1, "rewind_step": 7, "evaluate_every": 10, "checkpoint_every": 10},
    }
    words = ("fit", "--config", str(starter.config("any", small)))
    status, writes = forks(*words)
    assert status == 0
    assert {"mask.pt", "last.ckpt", "rewind.pt", "trained.pt", "result.json", "results.csv", "row"} <= set(writes)
    # The first is config.yaml: before it, there is no run to go on with.
    moments = [(index, "after") for index in range(len(writes))]
    moments += [(writes.index(kind), "half") for kind in dict.fromkeys(writes[1:])]
    for version, kill in enumerate(moments, start=1):
        run = starter.run("any", version)
        assert forks(*words, kill=kill)[0] == -signal.SIGKILL
        done = finished(run)
        age_events(run)
        moment = f"{kill[1]} write {kill[0]}, {writes[kill[0]]}"
        assert forks("fit", "--resume", str(run))[0] == 0, moment
        assert_nothing_was_repeated(run, done)
        assert_same_run(run, starter.run("any"), moment)

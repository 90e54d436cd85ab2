"""Two processes on two CPU devices, over gloo."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import (
    TORCHRUN,
    Process,
    Starter,
    advised,
    assert_same_run,
    finished,
    load,
    still_running,
    wait_for,
)
from user_parts import blobs, counts, lines, samples

TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
WITNESS = "--trainer.callbacks=user_parts.Witness"

CONFIG = {
    "seed_everything": 5,
    "data": {"class_path": "user_parts.Blobs", "init_args": {"validation_size": 100, "batch_size": 60}},
    "model": {
        "class_path": "LeNet300",
        # Plain SGD: a difference of rounding stays one, where Adam can turn it into a step of full size.
        "init_args": {"hidden": [40, 20], "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}},
    },
    "trainer": {"max_steps": 300, "accelerator": "cpu"},
    "pruning": {"levels": 2, "rewind_step": 15, "evaluate_every": 20, "checkpoint_every": 40},
}


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("ddp"))
    starter.config("same", CONFIG)
    yield starter
    starter.stop()


def witnessed(starter: Starter, name: str) -> tuple[str, str]:
    return WITNESS, f"--trainer.callbacks.folder={starter.folder / name}"


def fit(starter: Starter, *words: str) -> tuple[str, ...]:
    return "fit", "--config", str(starter.folder / "same.yaml"), *words


@pytest.fixture(scope="module")
def one(starter: Starter) -> Path:
    """The run on one device."""
    starter.finish(*fit(starter, "--experiment", "one", *witnessed(starter, "one_seen")))
    return starter.run("one")


@pytest.fixture(scope="module")
def two(starter: Starter) -> Path:
    """The same on two."""
    starter.finish(*fit(starter, "--experiment", "two", *TWO, *witnessed(starter, "two_seen")))
    return starter.run("two")


def test_two_ranks_make_one_record_a_training(two: Path) -> None:
    assert [(row["level"], row["status"], row["steps"]) for row in load(two / "results.csv")] == [
        ("0", "ok", "300"),
        ("1", "ok", "300"),
        ("2", "ok", "300"),
    ]
    assert [path.name for path in two.parent.iterdir()] == ["version_0"]


def test_two_ranks_find_what_one_finds(one: Path, two: Path) -> None:
    rows = list(zip(load(one / "results.csv"), load(two / "results.csv"), strict=True))
    for alone, together in rows:
        for name, value in alone.items():
            if name.endswith("_loss"):
                assert float(together[name]) == pytest.approx(float(value), rel=1e-3), name
            elif name.endswith("_acc"):
                # One sample of 100, at most.
                assert float(together[name]) == pytest.approx(float(value), abs=0.0101), name
            else:
                assert together[name] == value, name


def test_both_ranks_end_with_the_same_weights_and_zeros(starter: Starter, two: Path) -> None:
    first, second = (lines(starter.folder / "two_seen", rank) for rank in (0, 1))
    assert len(first) == len(second) == 3
    for a, b in zip(first, second, strict=True):
        assert (a["weights"], a["zeros"]) == (b["weights"], b["zeros"])
    assert len({line["zeros"] for line in first}) == 3


def test_the_global_batch_is_split_without_overlap(starter: Starter, one: Path, two: Path) -> None:
    whole = lines(starter.folder / "one_seen", 0)
    halves = [lines(starter.folder / "two_seen", rank) for rank in (0, 1)]
    for fit_alone, fit_first, fit_second in zip(whole, *halves, strict=True):
        batches = [line["batches"] for line in (fit_alone, fit_first, fit_second)]
        assert len(batches[0]) in (300, 300 - 15)
        for alone, first, second in zip(*batches, strict=True):
            assert len(first) == len(second) == 30
            assert not set(first) & set(second)
            assert sorted(first + second) == sorted(alone)


@pytest.mark.thorough
def test_two_ranks_stopped_and_resumed_end_like_two_that_were_not(starter: Starter, two: Path) -> None:
    run, levels = starter.run("two", 1), starter.run("two", 1) / "replicate_0/ticket"

    process = starter.start(*fit(starter, "--experiment", "two", *TWO))
    assert process.wait_for((levels / "level_00/last.ckpt").exists), process.err
    process.send(signal.SIGTERM)
    assert process.end() == 143, process.err
    assert_clean(process, run)

    process = starter.start("fit", "--resume", advised(process.err))
    assert process.wait_for((levels / "level_01/last.ckpt").exists), process.err
    # As a terminal's Ctrl-C: to every process of the job.
    process.send(signal.SIGINT, group=True)
    assert process.end() == 130, process.err
    assert_clean(process, run)
    done = finished(run)

    process = starter.finish("fit", "--resume", advised(process.err))
    after = finished(run)
    assert {path: after[path] for path in done} == done
    assert_same_run(run, two)


def assert_clean(process: Process, run: Path) -> None:
    """One line that tells how to go on, and no process left."""
    assert process.err.count("lth fit --resume") == 1, process.err
    assert "Traceback" not in process.err
    assert wait_for(lambda: not still_running(run.parents[2]))


def test_torchrun_makes_one_run_which_is_the_same(starter: Starter, two: Path) -> None:
    words = fit(starter, "--experiment", "torchrun", *TWO, *witnessed(starter, "torchrun_seen"))
    starter.finish(*words, command=TORCHRUN)
    assert [path.name for path in starter.run("torchrun").parent.iterdir()] == ["version_0"]
    assert_same_run(starter.run("torchrun"), two)
    assert lines(starter.folder / "torchrun_seen", 1) == lines(starter.folder / "two_seen", 1)


def test_somebodys_own_module_and_loader_are_split_between_ranks(starter: Starter) -> None:
    content = {
        "model": {"class_path": "user_parts.Foreign", "init_args": {"batch_size": 20}},
        "trainer": {"max_steps": 20, "accelerator": "cpu"},
        "pruning": {"levels": 1, "evaluate_every": 10},
    }
    config = starter.config("foreign", content)
    starter.finish("fit", "--config", str(config), *TWO, *witnessed(starter, "foreign_seen"))
    assert [row["status"] for row in load(starter.run("foreign") / "results.csv")] == ["ok", "ok"]
    everything = set(samples(blobs(400, 1)[0] / 255))
    first, second = (lines(starter.folder / "foreign_seen", rank) for rank in (0, 1))
    assert len(first) == len(second) == 2
    for a, b in zip(first, second, strict=True):
        assert (a["weights"], a["zeros"]) == (b["weights"], b["zeros"])
        # Its batch size is a rank's, so an epoch of 400 is 10 batches on each: two epochs.
        for epoch in (slice(0, 10), slice(10, 20)):
            mine, others = counts(a["batches"][epoch]), counts(b["batches"][epoch])
            assert mine.total() == others.total() == 200
            assert not mine & others
            assert set(mine | others) == everything
        assert a["batches"][:10] != a["batches"][10:]


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("spawn", ("--trainer.devices=2", "--trainer.strategy=ddp_spawn"), "ddp"),
        ("odd", (*TWO, "--data.batch_size=61"), "multiple of 2"),
    ],
)
def test_what_cannot_be_run_on_two_devices_is_refused_in_one_line(
    starter: Starter, name: str, words: tuple[str, ...], reason: str
) -> None:
    process = starter.start(*fit(starter, "--experiment", name, *words))
    assert process.end() == 2, process.err
    assert len(process.err.strip().splitlines()) == 1, process.err
    assert reason in process.err
    assert not starter.run(name).exists()
    assert wait_for(lambda: not still_running(starter.folder))


GROUPS = """
import os, sys, torch
from lth_lightning.callbacks import ranks
ranks.SETTLE = float(sys.argv[1])
for _ in range(100):
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    with ranks.process_group():
        for _ in range(3):
            torch.distributed.broadcast(torch.zeros(1000), 0)
            torch.distributed.broadcast_object_list([1], 0)
            torch.distributed.barrier()
    assert not torch.distributed.is_initialized()
"""


def test_a_process_group_ends_though_its_threads_still_let_go_of_tensors() -> None:
    subprocess.run([sys.executable, "-c", GROUPS, "0.01"], check=True, timeout=600)

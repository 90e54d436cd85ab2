"""Processes of one run: they wait where signals are heard, and none outlives another in silence."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import LTH, Process, Starter, advised, assert_same_run, still_running, wait_for
from test_ddp import CONFIG, TWO

from lth_lightning.callbacks.peers import difference, settings_of

STEPS = 2000


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    starter.config("same", {**CONFIG, "trainer": {"max_steps": STEPS, "accelerator": "cpu"}})
    yield starter
    starter.stop()


def start(starter: Starter, *words: str, **env: str) -> Process:
    return starter.start("fit", "--config", str(starter.folder / "same.yaml"), *words, **env)


def task(starter: Starter, rank: int, *words: str, port: str = "23911") -> Process:
    """A task of a Slurm job of two."""
    job = {"SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "77", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0"}
    ranks = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    return start(starter, *words, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2", MASTER_PORT=port, **job, **ranks)


def trains(starter: Starter, process: Process) -> None:
    assert process.wait_for(lambda: list(starter.folder.rglob("last.ckpt"))), process.err


def only_line(process: Process) -> str:
    lines = [line for line in process.err.strip().splitlines() if line and not line.startswith("Waiting")]
    assert len(lines) == 1, process.err
    return lines[0]


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_node_says_that_it_waits_for_another_and_can_be_stopped(starter: Starter, number: int, code: int) -> None:
    process = start(starter, "--trainer.num_nodes=2", "--trainer.strategy=ddp")
    assert process.wait_for(lambda: "Waiting for 1 of 2 nodes" in process.err), process.err
    assert "NODE_RANK=1" in process.err
    process.send(number)
    assert process.end() == code
    assert only_line(process).endswith("Nothing was begun.")
    assert not list(starter.folder.rglob("version_*"))


@pytest.mark.thorough
def test_tasks_of_one_slurm_job_make_one_run_which_is_the_same(starter: Starter) -> None:
    short = "--trainer.max_steps=100"
    both = [task(starter, rank, *TWO, short, "--experiment=tasks") for rank in (0, 1)]
    assert [process.end() for process in both] == [0, 0], both[0].err + both[1].err
    assert start(starter, *TWO, short, "--experiment=launched").end() == 0
    assert_same_run(starter.run("tasks"), starter.run("launched"))


@pytest.mark.thorough
@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_that_one_task_meets_alone_is_told_by_it_and_ends_the_others(starter: Starter, rank: int) -> None:
    wrong = "--workers=2"  # no setting of the run's
    both = [task(starter, each, *TWO, *([wrong] if each == rank else [])) for each in (0, 1)]
    assert [process.end() for process in both] == [2, 2]
    for each, process in enumerate(both):
        assert ("process 1: " in process.err) == (each == 1)
        assert "Several workers train on the CPU" in only_line(process)


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["lth", "torchrun"])
def test_processes_of_other_settings_are_told_before_anything_is_trained(starter: Starter, command: str) -> None:
    told = "trainer.max_steps is 80 in process 1, and 60 in process 0"
    if command == "lth":
        both = [task(starter, rank, *TWO, f"--trainer.max_steps={60 + 20 * rank}") for rank in (0, 1)]
        assert [process.end() for process in both] == [2, 2]
        assert all(told in only_line(process) for process in both)
    else:
        script = starter.folder / "rank.sh"
        script.write_text('exec "$@" --trainer.max_steps "$((60 + 20 * LOCAL_RANK))"\n')
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python"]
        words = ("fit", "--config", str(starter.folder / "same.yaml"), *TWO)
        process = starter.start(*words, command=[*run, "bash", str(script), *LTH])
        assert process.end() != 0
        assert process.err.count(f"lth: Process 1 has other settings than process 0: {told}") == 1
    assert not list(starter.folder.rglob("version_*"))


def test_the_first_setting_that_differs_is_named_where_it_decides_what_is_computed() -> None:
    own = {"root": "a", "files": "/a", "tags": ["x", "y"], "key": "<object at 0x7f>", "size": 3}
    pruning = {**CONFIG["pruning"], "controls": [{"class_path": "RandomReinit"}], "rates": {"linear": 0.2}}
    known = {
        **CONFIG,
        "pruning": pruning,
        "logs": "a",
        "threads": 1,
        "data": {"class_path": "Digits", "init_args": own},
    }

    def told(**change: Any) -> str:
        other = {**known, **change}
        return difference(settings_of(yaml.safe_dump(known)), settings_of(yaml.safe_dump(other)), 3)

    def data(**change: Any) -> str:
        return told(data={"class_path": "Digits", "init_args": {**own, **change}})

    assert told() == told(logs="b") == told(threads=2) == ""
    assert told(trainer={**known["trainer"], "enable_progress_bar": False, "callbacks": [{"dirpath": "/b"}]}) == ""
    assert data(root="b") == data(files="/b") == data(tags=["y", "x"]) == data(key="<object at 0x8f>") == ""
    assert "Process 3 " in told(seed_everything=6)
    assert "seed_everything is 6 in process 3, and 5 in process 0" in told(seed_everything=6)
    assert "data.size is 4 in process 3, and 3 in" in data(size=4)
    for name, value in {"levels": 3, "controls": [], "rates": {"linear": 0.9}}.items():
        assert f"pruning.{name}" in told(pruning={**known["pruning"], name: value}), name
    assert "trainer.max_steps is 7 in" in told(trainer={**known["trainer"], "max_steps": 7})


@pytest.mark.thorough
def test_a_mistake_of_all_tasks_is_told_once(starter: Starter) -> None:
    both = [task(starter, rank, *TWO, "--data.batch_size=61") for rank in (0, 1)]
    assert [process.end() for process in both] == [2, 2]
    assert "multiple of 2" in only_line(both[0])
    assert both[1].err == ""


@pytest.mark.thorough
def test_tasks_of_a_trainer_that_wants_one_process_are_told(starter: Starter) -> None:
    process = task(starter, 1)
    assert process.end() == 2
    assert "--trainer.devices" in only_line(process)


@pytest.mark.thorough
@pytest.mark.parametrize("killed", [0, 1])
def test_a_task_whose_other_is_killed_ends_with_the_line_that_resumes(starter: Starter, killed: int) -> None:
    both = [task(starter, rank, *TWO) for rank in (0, 1)]
    trains(starter, both[0])
    both[killed].send(signal.SIGKILL)
    left = both[1 - killed]
    assert left.end() == 2
    assert f"Process {killed} of 2 has ended" in only_line(left)
    advised(left.err)


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_task_that_waits_within_pytorch_can_be_stopped(starter: Starter, number: int, code: int) -> None:
    both = [task(starter, rank, *TWO) for rank in (0, 1)]
    trains(starter, both[0])
    both[1].send(signal.SIGSTOP)
    time.sleep(2)  # by now the other waits in a collective
    both[0].send(number)
    assert both[0].end() == code
    advised(only_line(both[0]))
    both[1].send(signal.SIGCONT)
    assert both[1].end() == 2


def children(process: Process) -> list[int]:
    of = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
    return [int(pid) for pid in of if b"lth_lightning" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.thorough
def test_a_process_that_lightning_started_and_somebody_killed_ends_the_run_in_one_line(starter: Starter) -> None:
    process = start(starter, *TWO)
    trains(starter, process)
    (child,) = children(process)
    os.kill(child, signal.SIGKILL)
    assert process.end() == 2
    assert "Process 1 of 2 has ended" in only_line(process)
    advised(process.err)


@pytest.mark.thorough
def test_what_lightning_started_does_not_outlive_the_process_that_was_killed(starter: Starter) -> None:
    process = start(starter, *TWO)
    trains(starter, process)
    process.send(signal.SIGKILL)
    process.end()
    assert wait_for(lambda: not still_running(starter.folder))

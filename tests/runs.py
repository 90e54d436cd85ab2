"""Starts the command as a process of its own, stops it at chosen moments, and compares what two runs left."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).parent
PATIENCE = 180.0
"""Seconds after which something hangs; far more than anything takes."""

LTH = (sys.executable, "-m", "lth_lightning")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "lth_lightning")


def environment(**extra: str) -> dict[str, str]:
    """One thread, and the classes of user_parts.py importable."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    distributed = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if key not in distributed}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **extra}


def wait_for(what: Callable[[], Any], process: subprocess.Popen | None = None) -> bool:
    """Poll until `what()` holds: True. False where the process ended first."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if what():
            return True
        if process is not None and process.poll() is not None:
            return bool(what())
        time.sleep(0.002)
    raise TimeoutError("waited in vain")


class Process:
    """A started command, the leader of a process group of its own; its output goes to files."""

    def __init__(self, words: Sequence[str], folder: Path, command: Sequence[str] = LTH, **env: str) -> None:
        self.number = len(list(folder.glob("out_*.txt")))
        self._paths = [folder / f"{name}_{self.number}.txt" for name in ("out", "err")]
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self.popen = subprocess.Popen(
                [*command, *words],
                cwd=folder,
                env=environment(**env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._paths[0].read_text()

    @property
    def err(self) -> str:
        return self._paths[1].read_text()

    def wait_for(self, what: Callable[[], Any]) -> bool:
        return wait_for(what, self.popen)

    def end(self) -> int:
        """Its exit code, negative where a signal killed it."""
        return self.popen.wait(PATIENCE)

    def send(self, number: int, group: bool = False) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, number) if group else self.popen.send_signal(number)

    def kill(self) -> None:
        """The whole group, whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)


class Starter:
    """Starts commands in a folder and, at the end, ends what is left of them. For a fixture of module scope."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    def start(self, *words: str, command: Sequence[str] = LTH, **env: str) -> Process:
        self.started.append(Process(words, self.folder, command, **env))
        return self.started[-1]

    def finish(self, *words: str, command: Sequence[str] = LTH, **env: str) -> Process:
        """Start and wait for exit code 0."""
        process = self.start(*words, command=command, **env)
        assert process.end() == 0, process.err
        return process

    def config(self, name: str, content: dict[str, Any]) -> Path:
        """`name`.yaml, whose runs are in logs/`name`/."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"logs": str(self.folder / "logs"), **content}))
        return path

    def run(self, name: str, version: int = 0) -> Path:
        return self.folder / "logs" / name / f"version_{version}"

    def stop(self) -> None:
        for process in self.started:
            process.kill()


def still_running(folder: Path) -> list[str]:
    """Command lines of the processes, but for this one, that name `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(entry.name) != os.getpid():
            found.append(line)
    return found


def advised(text: str) -> str:
    """The folder in the line that tells how to go on."""
    found = re.search(r"lth fit --resume (\S+)", text)
    assert found, text
    return found[1]


# Comparing.


def tensors_equal(a: Any, b: Any) -> bool:
    """Equality of what torch.load gave, to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(tensors_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(tensors_equal, a, b))
    return bool(a == b)


def load(path: Path) -> Any:
    """The content of a file of a run, less what is not the same twice."""
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        # Lightning's counters, with the wall time so far.
        return {key: value for key, value in content.items() if key != "trainer"}
    if path.suffix == ".csv":
        with path.open() as file:
            return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    if path.suffix == ".json":
        # A run that went on has a session more in its run.json, and one of another name has another config.
        return {
            key: value
            for key, value in json.loads(path.read_text()).items()
            if key not in ("seconds", "sessions", "configs")
        }
    return None


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows of `folder`: a point a step, events of a killed process withdrawn."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=True).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def names(run: Path) -> set[Path]:
    """Files relative to the run, hidden ones too; event files, whose names hold time and process, by their folder."""
    files = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return {path.with_name("events") if path.name.startswith("events.") else path for path in files}


def assert_same_run(run: Path, expected: Path, what: str = "") -> None:
    """Every file of `run` holds what `expected`'s does, bit for bit; and there is no file more or less."""
    assert names(run) == names(expected), (what, sorted(names(run) ^ names(expected)))
    for name in sorted(names(expected)):
        if name.name == "events":
            assert scalars((run / name).parent) == scalars((expected / name).parent), (what, name)
        else:
            assert tensors_equal(load(run / name), load(expected / name)), (what, name)


def finished(run: Path) -> dict[Path, tuple[bytes, int]]:
    """What is final of each finished training, with the time it was written."""
    files = [path for result in run.glob("*/*/*/result.json") for path in (result, result.with_name("trained.pt"))]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files if path.exists()}

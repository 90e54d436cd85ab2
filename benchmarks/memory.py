"""Memory, disk and the fixed cost of the levels of a long run.

    python -m benchmarks.memory [--steps 600] [--levels 28] [--device cpu]

Starts `lth fit --config lenet` on random images of MNIST's shape, tickets alone, and watches its processes in /proc
(Linux): the peak of each, and what is resident when level 5 and when the last level is recorded. Then what the run
left on the disk, by the files' names. Then the same run with one step a level: the mean time from one result.json to
the next is what a level costs beside its steps, with the measurement on all training images and without.
MB are 10^6 bytes. VmRSS counts pages of libraries' files, which processes share; RssAnon does not; Pss is a process's
part of shared pages, so that it may be added up.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.task import machine

ROOT = Path(__file__).parent.parent
EARLY = 5
"""The level whose memory the last one's is compared with: the first ones still load what is loaded late."""


def resident(pid: int) -> dict[str, float]:
    """MB by the names that /proc gives them; empty where the process has ended."""
    try:
        lines = [
            line for name in ("status", "smaps_rollup") for line in Path(f"/proc/{pid}/{name}").read_text().splitlines()
        ]
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    wanted = ("VmHWM", "VmRSS", "RssAnon", "Pss")
    return {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in wanted if name in fields}


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in path.read_text().split()]
            except OSError:
                continue
    return found


class Watch(threading.Thread):
    """Samples a process and its descendants until it ends."""

    def __init__(self, pid: int, logs: Path) -> None:
        super().__init__(daemon=True)
        self.pid, self.logs = pid, logs
        self.peaks: dict[int, dict[str, float]] = {}
        self.total = 0.0
        self.at_level: dict[int, dict[int, dict[str, float]]] = {}

    def run(self) -> None:
        while now := {pid: found for pid in family(self.pid) if (found := resident(pid)).get("VmRSS")}:
            for pid, found in now.items():
                peak = self.peaks.setdefault(pid, dict.fromkeys(found, 0.0))
                self.peaks[pid] = {name: max(value, peak.get(name, 0.0)) for name, value in found.items()}
            self.total = max(self.total, sum(found.get("Pss", 0.0) for found in now.values()))
            for path in self.logs.glob("**/result.json"):
                self.at_level.setdefault(int(path.parent.name.split("_")[1]), now)
            time.sleep(0.03)


def fit(logs: Path, steps: int, levels: int, device: str, *flags: str, watch: bool = False) -> Watch:
    """Make a run of `lth fit`; raises CalledProcessError, its output printed, where that fails."""
    accelerator = "gpu" if device == "cuda" else device
    words = f"fit --config lenet --data benchmarks.data.RandomMNIST --trainer.accelerator {accelerator} "
    words += f"--trainer.max_steps {steps} --pruning.levels {levels} --pruning.controls null --logs {logs}"
    command = [sys.executable, "-m", "lth_lightning", *words.split(), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watcher = Watch(process.pid, logs)
    if watch:
        watcher.start()
    output, _ = process.communicate()
    if process.returncode:
        print(output)
        raise subprocess.CalledProcessError(process.returncode, command)
    return watcher


def sizes(folder: Path) -> Counter[str]:
    """Bytes of all files below `folder`, by name; TensorBoard's, which are numbered, together."""
    found: Counter[str] = Counter()
    for path in folder.glob("**/*"):
        if path.is_file():
            found["events" if path.name.startswith("events.") else path.name] += path.stat().st_size
    return found


def seconds_a_level(logs: Path) -> float:
    """Mean seconds from one level's result to the next one's."""
    times = sorted(path.stat().st_mtime for path in logs.glob("**/result.json"))
    return (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--levels", type=int, default=28, help="levels of pruning, after the dense one")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    levels, device = options.levels, options.device
    print(f"{machine()}, {device}; LeNet-300-100, {levels + 1} levels of {options.steps} steps, one thread")
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / "logs"
        # One level more: after the last one the table and the verdict are made, with libraries of their own.
        watch = fit(logs, options.steps, levels + 1, device, watch=True)
        report_memory(watch, min(EARLY, levels), levels)
        for path in logs.glob(f"**/level_{levels + 1:02d}"):
            shutil.rmtree(path)
        split = sizes(logs)
        names = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in split.most_common())
        print(f"disk: {split.total() / 1e6:.1f} MB ({names})")
    for flags in ((), ("--pruning.train_accuracy", "false")):
        with tempfile.TemporaryDirectory() as folder:
            fit(Path(folder), 1, levels, device, *flags)
            with_what = "without accuracy on the training set" if flags else "everything on"
            print(f"a level of 1 step, {with_what}: {seconds_a_level(Path(folder)):.3f} s, mean of {levels}")


def report_memory(watch: Watch, early: int, last: int) -> None:
    """Print peaks by process, and the growth from level `early` to level `last`."""
    for number, peak in enumerate(watch.peaks.values()):
        print(f"process {number}, peak MB: " + ", ".join(f"{name} {value:.0f}" for name, value in peak.items()))
    print(f"all processes together, peak MB: Pss {watch.total:.0f}")
    for name in ("VmRSS", "RssAnon"):
        first, final = (sum(m[name] for m in watch.at_level[level].values()) for level in (early, last))
        print(f"{name} at level {early}: {first:.0f} MB, at level {last}: {final:.0f} MB, {final / first - 1:+.1%}")


if __name__ == "__main__":
    main()

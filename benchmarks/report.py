"""What `lth report` takes for a large run: 20 replicates x 29 levels x 3 arms, 500 evaluations a curve, weights.


python -m benchmarks.report

The numbers in the run are made up; the files are those of a real one. The command runs in a process of its own, imports
included, on one CPU thread.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.task import machine
from lth_lightning.files import write_pt
from lth_lightning.models import LeNet300
from lth_lightning.pruning import Schedule, snapshot
from lth_lightning.results.curve import MetricsFile
from lth_lightning.results.record import OK, Record, write_table
from lth_lightning.results.run_folder import CONFIG, MASK, METRICS, REWIND, TRAINED
from lth_lightning.results.training import TICKET, Training

ARMS = (TICKET, "random_reinit", "random_mask")
STEPS = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"replicates": 20, "levels": 29, "points": 500}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "lenet" / "version_0"
        # In a process of its own: a child's peak counts what its parent held when it was started.
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(run, options.replicates, options.levels, options.points)
        )
        maker.start()
        maker.join()
        began = time.monotonic()
        command = [sys.executable, "-m", "lth_lightning", "report", str(run)]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit("lth report failed.")
        seconds = time.monotonic() - began
        peak = usage.ru_maxrss * 1024
        page = (run / "report" / "report.html").stat().st_size
        figures = len(list((run / "report").glob("*.png")))
    print(machine())
    print(
        f"{options.replicates} replicates x {options.levels} levels x {len(ARMS)} arms, {options.points} points a curve"
    )
    print(f"time {seconds:.1f} s, peak memory {peak / 1e6:.0f} MB, page {page / 1e6:.2f} MB, {figures} figures")


def make(run: Path, replicates: int, levels: int, points: int) -> None:
    """Write a run with known files and random numbers."""
    random = np.random.default_rng(0)
    model = LeNet300()
    schedule = Schedule.of(model, levels - 1)
    records = []
    for replicate in range(replicates):
        model = LeNet300()
        initial, mask = snapshot(model), schedule.dense_mask(model)
        trained = {name: value + 0.05 * torch.randn_like(value) for name, value in initial.items()}
        write_pt(run / f"replicate_{replicate}" / REWIND, {"format": 1, "weights": initial, "step": 0, "seed": 0})
        for level in range(levels):
            if level:
                mask = schedule.prune(level, mask, trained, initial)
            left = schedule.density(level), schedule.weights_remaining(level)
            for arm in ARMS if level else (TICKET,):
                training = Training(replicate, arm, 0, level, run)
                records.append(_record(training, *left, random))
                records[-1].write(training.folder)
                _write_curve(training.folder / METRICS, points, random)
                if arm == TICKET:
                    content = {"format": 1, "mask": mask, "level": level}
                    write_pt(training.folder / MASK, content)
                    if level == 0:
                        write_pt(training.folder / TRAINED, {"format": 1, "weights": trained})
    write_table(run, sorted(records, key=lambda record: record.order))
    (run / CONFIG).write_text(yaml.safe_dump(CONFIGURATION))


def _record(training: Training, density: float, weights: int, random: np.random.Generator) -> Record:
    stop = int(random.integers(20, 100)) * 100
    losses, accuracies = 0.06 + 0.02 * random.random(4), 0.97 + 0.02 * random.random(6)
    return Record(
        *training.order, OK, 266_200, weights, density, STEPS,
        early_stop_step=stop, early_stop_val_loss=losses[0], early_stop_val_acc=accuracies[0],
        early_stop_test_loss=losses[1], early_stop_test_acc=accuracies[1], early_stop_train_acc=accuracies[2],
        final_val_loss=losses[2], final_val_acc=accuracies[3], final_test_loss=losses[3], final_test_acc=accuracies[4],
        final_train_acc=accuracies[5], seconds=50.0,
    )  # fmt: skip


def _write_curve(path: Path, points: int, random: np.random.Generator) -> None:
    steps = np.arange(1, points + 1) * (STEPS // points)
    rise = 1 - np.exp(-steps / 2000)
    noise = random.normal(0, 0.002, (points, 5))
    loss, accuracy = (0.6 - 0.55 * rise)[:, None], (0.8 + 0.18 * rise)[:, None]
    columns = np.hstack([loss + noise[:, :2], accuracy + noise[:, 2:3], loss + noise[:, 3:4], accuracy + noise[:, 4:]])
    lines = [f"{step},{','.join(f'{value:.5f}' for value in row)}" for step, row in zip(steps, columns, strict=True)]
    header = ",".join(MetricsFile(path, with_test=True).columns)
    path.write_text("\n".join([header, *lines, ""]))


CONFIGURATION = {
    "seed_everything": 0,
    "trainer": {"max_steps": STEPS},
    "model": {
        "class_path": "lth_lightning.models.LeNet300",
        "init_args": {
            "hidden": [300, 100],
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.0012}},
        },
    },
    "data": {"class_path": "lth_lightning.data.MNIST", "init_args": {"batch_size": 60}},
    "pruning": {"rates": {"linear": 0.2, "output": 0.1}, "controls": []},
}
"""The paper's LeNet, so that its claims are judged, too."""


if __name__ == "__main__":
    main()

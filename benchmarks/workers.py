"""What trainings side by side gain: a run with one worker, with several, and a plain PyTorch reproduction.

    python -m benchmarks.workers [--steps 1500] [--plain-steps 300] [--pairs 3] [--workers CORES]

A run of as many replicates as workers, LeNet-300-100 of MNIST's shape, dense and one level of tickets, with everything
on; one thread for each training. With one worker its trainings are made one after another. In turns with both, the
plain loop of `benchmarks.loops` at its own defaults, all CPU cores among them. Times are wall time divided by all steps
of all trainings: microseconds a replicate-step, the start of the workers and the run's end included. At the end the two
runs' results are compared, bit for bit.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import pytorch_lightning as pl

from benchmarks.data import RandomMNIST
from benchmarks.loops import plain
from benchmarks.task import EVERY, machine, spread, start_at, threads
from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.models import LeNet300

LEVELS = 1


def run(data: RandomMNIST, steps: int, replicates: int, workers: int) -> tuple[float, dict[str, bytes]]:
    """Microseconds a replicate-step, and the trained weights' files by their names."""
    with tempfile.TemporaryDirectory() as folder:
        loop = PruningLoop(levels=LEVELS, replicates=replicates, evaluate_every=EVERY)
        began = time.perf_counter()
        records = loop.run(
            lambda training: pl.Trainer(max_steps=steps, accelerator="cpu", devices=1),
            LeNet300,
            data,
            logs=Path(folder),
            display=Display(enabled=False),
            workers=workers,
        )
        seconds = time.perf_counter() - began
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("trained.pt")}
    return 1e6 * seconds / (steps * len(records)), files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--plain-steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    data, ticket = RandomMNIST(), start_at(0.8)
    print(f"{machine()}; {options.pairs} pairs, {options.workers} replicates of {LEVELS + 1} levels of {options.steps}")
    print("us a replicate-step   one worker    several      plain")
    rows: list[tuple[float, float, float]] = []
    with quiet():
        for number in range(-1, options.pairs):
            # The first round, which is not counted, loads what is loaded late.
            steps, plain_steps = (EVERY, EVERY) if number < 0 else (options.steps, options.plain_steps)
            with threads(1):
                alone, files = run(data, steps, options.workers, 1)
                beside, same = run(data, steps, options.workers, options.workers)
            if files != same:
                raise SystemExit("the two runs trained different weights")
            # Last: its second thread makes a pool, which the workers of a later round would not have.
            with threads(options.workers):
                theirs = plain(data, ticket, plain_steps).micros
            if number >= 0:
                rows.append((alone, beside, theirs))
                print(f"pair {number:<15}" + "".join(f"{value:12.0f}" for value in rows[-1]), flush=True)
    print("median (min-max) of the ratios, pair by pair; the two runs' weights were equal bit for bit:")
    print(f"  one worker / {options.workers} workers  {spread([a / b for a, b, _ in rows], '.2f')}")
    print(f"  plain / one worker     {spread([p / a for a, _, p in rows], '.2f')}")
    print(f"  plain / {options.workers} workers      {spread([p / b for _, b, p in rows], '.2f')}")


if __name__ == "__main__":
    main()

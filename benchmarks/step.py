"""What a step of a level costs beside a bare loop, a plain PyTorch reproduction and an ordinary LightningModule.

    python -m benchmarks.step [--steps 5000] [--plain-steps 500] [--pairs 5] [--threads 1] [--device cpu]

One LeNet-300-100 level of MNIST's shape with everything on (evaluation every 100 steps, early-stop snapshot,
checkpoints, TensorBoard, bars, results), and in turns with it, in this process, the loops of `benchmarks.loops` from
the same weights under the same mask: `bare` as people write it, with denormal numbers taken for zero as a level takes
them (`bare-zero`), and with the package's linear layers (`bare-own`); `plain` at its own
defaults, all CPU cores among them, and with a level's evaluations (`matched`); `ordinary`, a LightningModule with a
DataLoader. Wall time of everything divided by steps, evaluations included; the plain loops, being slow, make fewer
steps. A round runs each once, and every ratio is of two times of one round. At the end: which share of a level's time
goes into its evaluations.
"""

import argparse
import os
import warnings
from collections.abc import Callable

from benchmarks.data import RandomMNIST
from benchmarks.level import Clock, level
from benchmarks.loops import bare, lightning_module, plain
from benchmarks.task import EVERY, Timing, machine, spread, start_at, threads
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.denormals import flushed

LENGTH = 50_000
"""Steps of the paper's LeNet."""


def main() -> None:
    options = parse()
    data, ticket, device = RandomMNIST(), start_at(options.density), options.device
    data.setup()
    clocks: list[Clock] = []

    def ours(steps: int) -> Timing:
        clocks.append(Clock(device))
        return level(data, ticket, steps, device, clocks[-1])

    def without_denormals(steps: int) -> Timing:
        with flushed():
            return bare(data, ticket, steps, device)

    # name: what runs, its steps, its threads
    loops: dict[str, tuple[Callable[[int], Timing], int, int]] = {
        "level": (ours, options.steps, options.threads),
        "bare": (lambda steps: bare(data, ticket, steps, device), options.steps, options.threads),
        "bare-zero": (without_denormals, options.steps, options.threads),
        "bare-own": (lambda steps: bare(data, ticket, steps, device, True), options.steps, options.threads),
        "plain": (lambda steps: plain(data, ticket, steps, device), options.plain_steps, options.plain_threads),
        "matched": (lambda steps: plain(data, ticket, steps, device, True), options.plain_steps, options.threads),
        "ordinary": (lambda steps: lightning_module(data, ticket, steps, device), options.steps, options.threads),
    }
    print(f"{machine()}, {device}; {options.pairs} pairs, {ticket.density:.0%} of the weights")
    for name, (_, steps, count) in loops.items():
        print(f"  {name}: {steps} steps, {count} thread(s)")
    print("us a step  " + "".join(f"{name:>10}" for name in loops))
    rounds: list[dict[str, Timing]] = []
    for number in range(-1, options.pairs):
        # The first round, which is not counted, moves the data to the device and loads what is loaded late.
        timings = {name: timed(loop, EVERY if number < 0 else steps, n) for name, (loop, steps, n) in loops.items()}
        if number >= 0:
            rounds.append(timings)
            print(f"pair {number:<6}" + "".join(f"{t.micros:10.0f}" for t in timings.values()), flush=True)
    print("median (min-max) of the ratios, pair by pair:")
    for name in list(loops)[1:]:
        over = [timings["level"].micros / timings[name].micros for timings in rounds]
        under = [1 / ratio for ratio in over]
        print(f"  level / {name:<9} {spread(over):24} {name + ' / level':>17} {spread(under, '.2f')}")
    report_shares(clocks[1:], [timings["level"] for timings in rounds])


def timed(loop: Callable[[int], Timing], steps: int, count: int) -> Timing:
    with threads(count), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        return loop(steps)


def report_shares(clocks: list[Clock], levels: list[Timing]) -> None:
    """Print which share of a level's time goes into evaluations, as timed and at the paper's length."""
    for steps in (levels[0].steps, LENGTH):
        shares = [clock.shares(timing, steps) for clock, timing in zip(clocks, levels, strict=True)]
        both, measure = ([share[i] for share in shares] for i in range(2))
        print(
            f"share of a level of {steps:,} steps{' (extrapolated)' if steps != levels[0].steps else ''}: validation, "
            f"early-stop snapshot and end measurement {spread(both, '.1%')}, of it the end {spread(measure, '.1%')}"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="of the level, bare and ordinary")
    parser.add_argument("--plain-steps", type=int, default=500, help="of plain and matched")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of all but plain")
    parser.add_argument("--plain-threads", type=int, default=os.cpu_count(), help="of plain: torch's own default")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--density", type=float, default=0.8, help="of the mask: level 1's")
    options = parser.parse_args()
    for name in ("steps", "plain_steps"):
        if getattr(options, name) % EVERY:
            parser.error(f"{name} must be a multiple of {EVERY}, the steps between evaluations")
    return options


if __name__ == "__main__":
    main()

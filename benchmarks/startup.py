"""How long `lth` takes to start, beside the import of the libraries that it stands on.

    python -m benchmarks.startup [--rounds 5]

Starts, in turns: a Python that imports torch, torchvision and pytorch_lightning; `lth --help`; and `lth fit` of
quickstart's Digits and LeNet, until its first optimizer step is done. Seconds from the start of the process, and
their ratio to the imports' of the same round.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.task import machine, spread

IMPORTS = [sys.executable, "-c", "import torch, torchvision, pytorch_lightning"]
HELP = [sys.executable, "-m", "lth_lightning", "--help"]
FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os.write({pipe}, b"x"))
from lth_lightning.cli import main
sys.exit(main(sys.argv[1:]))
"""
FIT = "fit --config quickstart --trainer.max_steps 1 --pruning.levels 0 --pruning.controls null --replicates 1 --logs"


def to_end(command: list[str]) -> float:
    """Seconds until the command has ended; raises CalledProcessError where it fails."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def to_first_step() -> float:
    """Seconds until `lth fit` has made its first optimizer step, whichever process of it does; it is ended then."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as logs, open(reading, "rb", buffering=0) as pipe:
        command = [sys.executable, "-c", FIRST_STEP.format(pipe=writing), *FIT.split(), logs]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=[writing], start_new_session=True)
        os.close(writing)
        stepped = pipe.read(1)
        seconds = time.perf_counter() - began
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not stepped:
            raise RuntimeError("lth fit ended before its first step")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{machine()}; {rounds} rounds, seconds: median (min-max)")
    actions = {"imports": lambda: to_end(IMPORTS), "lth --help": lambda: to_end(HELP), "first step": to_first_step}
    for action in actions.values():
        action()  # reads the files from the disk
    times = [{name: action() for name, action in actions.items()} for _ in range(rounds)]
    for name in actions:
        ratios = [each[name] / each["imports"] for each in times]
        print(f"{name:<11} {spread([each[name] for each in times], '.2f'):22} over imports {spread(ratios, '.2f')}")


if __name__ == "__main__":
    main()

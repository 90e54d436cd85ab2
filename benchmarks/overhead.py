"""What a level costs beside a bare loop over the same tensors with the same evaluations.

    python -m benchmarks.overhead [--steps 3000] [--pairs 5] [--threads 1] [--device cpu]

Runs one LeNet-300-100 level of MNIST's shape with everything on (evaluation every 100 steps, early-stop snapshot,
checkpoints, TensorBoard, metrics.csv, results), and a hand-written PyTorch loop, in turns, and prints the ratio of
their times pair by pair. The images are random numbers, so nothing needs to be downloaded.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.data import MNIST, Split
from lth_lightning.models import LeNet300

BATCH, EVERY = 60, 100


class RandomMNIST(MNIST):
    """MNIST's shapes and sizes."""

    def prepare_data(self) -> None:
        pass

    def _load(self) -> tuple[Split, Split]:
        generator = torch.Generator().manual_seed(0)

        def split(size: int) -> Split:
            images = torch.randint(256, (size, 1, 28, 28), dtype=torch.uint8, generator=generator)
            return Split(images, torch.randint(10, (size,), generator=generator))

        return split(60_000), split(10_000)


def level(data: RandomMNIST, steps: int, device: str) -> None:
    """One level of the dense network by PruningLoop."""
    with tempfile.TemporaryDirectory() as folder:
        PruningLoop(levels=0).run(
            lambda training: pl.Trainer(max_steps=steps, accelerator=device, devices=1),
            LeNet300,
            data,
            logs=Path(folder),
            display=Display(enabled=False),
        )


def bare(data: RandomMNIST, steps: int, device: str) -> None:
    """The same training, evaluations and snapshots, by hand."""
    parts = {name: getattr(data, name) for name in ("train", "val", "test")}
    tensors = {name: (data.normalize(p.images.to(device)), p.labels.to(device)) for name, p in parts.items()}
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    net = LeNet300().net.to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1.2e-3, fused=True)
    images, labels = tensors["train"]

    @torch.no_grad()
    def evaluate(name: str) -> tuple[float, float]:
        net.eval()
        loss, hits = torch.zeros((), device=device), torch.zeros((), device=device)
        for x, y in zip(*(part.split(5000) for part in tensors[name]), strict=True):
            logits = net(x)
            loss += cross_entropy(logits, y, reduction="sum")
            hits += (logits.argmax(1) == y).sum()
        net.train()
        return float(loss), float(hits)

    best, snapshot = float("inf"), {}
    order, position = torch.randperm(len(labels), device=device), 0
    for step in range(1, steps + 1):
        if position + BATCH > len(labels):
            order, position = torch.randperm(len(labels), device=device), 0
        index = order[position : position + BATCH]
        position += BATCH
        optimizer.zero_grad()
        loss = cross_entropy(net(images.index_select(0, index)), labels.index_select(0, index))
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            value, _ = evaluate("val")
            if value < best:
                best, snapshot = value, {k: v.clone() for k, v in net.state_dict().items()}
    for weights in (None, snapshot):
        if weights:
            net.load_state_dict(weights)
        evaluate("test")
        evaluate("train")
    bare.seconds = time.perf_counter() - began  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = RandomMNIST()
    data.setup()
    level(data, 300, options.device)  # moves and normalizes the data, and loads what is loaded late
    ratios = []
    for pair in range(options.pairs):
        began = time.perf_counter()
        level(data, options.steps, options.device)
        ours = time.perf_counter() - began
        bare(data, options.steps, options.device)
        theirs = bare.seconds  # type: ignore[attr-defined]
        ratios.append(ours / theirs)
        micro = 1e6 / options.steps
        print(f"pair {pair}: level {ours * micro:.0f} us a step, bare {theirs * micro:.0f}, ratio {ratios[-1]:.3f}")
    print(
        f"ratio of {options.pairs} pairs, {options.steps} steps, {options.threads} thread(s), {options.device}: "
        f"median {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()

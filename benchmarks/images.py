"""Training images a second of one level, beside a plain PyTorch loop and the device's own matrix product.

    python -m benchmarks.images [--network Conv2] [--device cpu] [--precision 32-true] [--compile] [--together N]
        [--steps 500] [--plain-steps 100] [--pairs 3]

`level` is a run of one level with all that a training has, at the batch size and with the augmentation, optimizer and
schedule of the network's config, from a random mask. Its clock runs from the first step to the last one without the
evaluations (every 500 steps, where a config says 100, of 500 images instead of 5,000) and checkpoints in between; what
comes before and after, such as the measurement at the end, is not counted. With `--together N` it is N replicates'
levels as one batched model. `plain` is the same training as people write it: PIL images transformed one by one in a
DataLoader, torch.nn.utils.prune, an optimizer that is not fused, `loss.item()` at each step, nothing evaluated. A pair
runs each once, and every ratio is of one pair. The ceiling is the best of some big matrix products in the same
precision, measured among the pairs, by the faster of torch's libraries; percents of it count the dense network's
multiplications as a textbook does, so a convolution that needs fewer can pass it. Images and labels are random numbers.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from benchmarks.data import RandomMNIST
from benchmarks.level import Clock
from benchmarks.loops import PILImages
from benchmarks.task import lightnings_check, machine, spread, threads, wait
from lth_lightning import kernels, models
from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.data import CIFAR10, Split
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier, WarmupMultiStepLR
from lth_lightning.pruning import Ticket, remaining, weight_layers
from lth_lightning.shipped import config_folder

NETWORKS = ("Conv2", "Conv4", "Conv6", "ResNet20", "VGG19")
EVERY = 500
"""Steps between a level's evaluations: as many are one batch for Lightning, which is held in memory at once."""
PRODUCTS = {"cpu": 2, "cuda": 20}
"""Matrix products between two looks at the clock."""
SETTINGS = ("lr", "momentum", "weight_decay", "betas", "eps")
"""Of an optimizer, apart from how it is computed."""


class RandomCIFAR10(CIFAR10):
    """49,500 images [3, 32, 32] to train on, and few to evaluate."""

    test_size = 500
    prepare_data = RandomMNIST.prepare_data  # type: ignore[assignment]
    _load = RandomMNIST._load  # type: ignore[assignment]


class Task(NamedTuple):
    """What both loops train."""

    network: str
    data: CIFAR10
    ticket: Ticket
    milestones: list[int] | None
    """Steps at which the learning rate drops; None for a constant one, without a schedule."""

    def model(self) -> Classifier:
        schedule = self.milestones and partial(WarmupMultiStepLR, milestones=self.milestones)
        made: Classifier = getattr(models, self.network)(lr_scheduler=schedule)
        return made


def task(network: str, density: float) -> Task:
    """The config's data settings and schedule; optimizers are the classes' own, which the configs repeat."""
    config = yaml.safe_load((config_folder() / f"{network.lower()}.yaml").read_text())
    options = [c.get("init_args", {}) if isinstance(c, dict) else {} for c in (config["data"], config["model"])]
    data = RandomCIFAR10(**options[0], validation_size=500)
    data.setup()
    schedule = options[1].get("lr_scheduler")
    torch.manual_seed(0)
    model: Classifier = getattr(models, network)()
    weights = model.state_dict()
    mask = {layer.name: torch.rand(weights[layer.name].shape) < density for layer in weight_layers(model)}
    kept = remaining(mask) / sum(part.numel() for part in mask.values())
    return Task(network, data, Ticket(mask, weights, 1, kept), schedule and schedule["init_args"]["milestones"])


def level(task: Task, options: argparse.Namespace) -> float:
    """Images a second of a run's only level."""
    clock = Clock(options.device)
    members = options.together or 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.pt"
        task.ticket.save(path)
        loop = PruningLoop(
            levels=0,
            ticket=str(path),
            replicates=members,
            evaluate_every=EVERY,
            train_accuracy=False,
            together=bool(options.together),
            compile=options.compile,
        )
        loop.run(
            lambda training: pl.Trainer(
                max_steps=options.steps,
                accelerator="gpu" if options.device == "cuda" else "cpu",
                devices=1,
                precision=options.precision,
                callbacks=[clock],
            ),
            task.model,
            task.data,
            logs=Path(folder) / "logs",
            display=Display(enabled=False),
        )
    return members * options.steps * task.data.batch_size / (clock.seconds["fit"] - clock.seconds["evaluations"])


class ColorImages(PILImages):
    """PIL images of three channels."""

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        super().__init__(split, transform)
        self.images = split.images.permute(0, 2, 3, 1).contiguous()


def loader(task: Task, options: argparse.Namespace) -> DataLoader:
    """Shuffled batches, transformed as torchvision's examples do."""
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    mean_std = task.data.mean_std
    steps = [transforms.ToTensor(), transforms.Normalize(mean_std.mean, mean_std.std)]
    transform = transforms.Compose([*(augment if task.data.augmentation != "none" else []), *steps])
    return DataLoader(
        ColorImages(task.data.train, transform),
        batch_size=task.data.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.plain_workers,
    )


@lightnings_check(False)
def plain(task: Task, options: argparse.Namespace) -> float:
    """Images a second of a loop as people write it."""
    model = task.model()
    task.ticket.apply(model)
    net = model.net.to(options.device)
    for layer in net.modules():
        if isinstance(layer, kernels.Linear):
            layer.__class__ = nn.Linear  # type: ignore[assignment]  # what other people's networks consist of
    fused = model.optimizer(net.parameters())
    for name, mask in task.ticket.mask.items():
        layer = net.get_submodule(name.removeprefix("net.").removesuffix(".weight"))
        prune.custom_from_mask(layer, "weight", mask.to(options.device))
    settings = {key: fused.defaults[key] for key in SETTINGS if key in fused.defaults}
    optimizer = type(fused)(net.parameters(), **settings)
    schedule = MultiStepLR(optimizer, task.milestones) if task.milestones else None
    autocast = torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16-mixed")
    losses: list[float] = []
    began = 0.0
    while len(losses) < options.plain_steps:
        for images, labels in loader(task, options):
            images, labels = images.to(options.device), labels.to(options.device)
            optimizer.zero_grad()
            with autocast:
                loss = cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            losses.append(loss.item())
            if not began:  # the first step, which loads what is loaded late, and starts workers, is not counted
                wait(options.device)
                began = time.perf_counter()
            if len(losses) == options.plain_steps:
                break
    wait(options.device)
    return (options.plain_steps - 1) * task.data.batch_size / (time.perf_counter() - began)


def flops_an_image(task: Task) -> float:
    """Of the dense network's products and convolutions, forward and backward; a multiply-add is two."""
    net = task.model().net.to("meta")  # where nothing is computed, and no library's own operations are chosen
    images, labels = torch.zeros(1, *task.data.shape, device="meta"), torch.zeros(1, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        cross_entropy(net(images), labels).backward()
    return counter.get_total_flops()


def ceiling(options: argparse.Namespace) -> float:
    """FLOP/s of a big matrix product, float32 as convolutions do it by default: on a GPU in TF32."""
    size = 8192 if options.device == "cuda" else 2048
    dtype = torch.bfloat16 if options.precision == "bf16-mixed" else torch.float32
    first, second = (torch.randn(size, size, device=options.device).to(dtype) for _ in range(2))
    bias = torch.zeros(size, device=options.device, dtype=dtype)
    best = float("inf")
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        for _ in range(3):
            wait(options.device)
            began = time.perf_counter()
            for _ in range(PRODUCTS[options.device]):
                kernels.linear(first, second, bias)
            wait(options.device)
            best = min(best, time.perf_counter() - began)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 * PRODUCTS[options.device] / best


def main() -> None:
    options = parse()
    made = task(options.network, options.density)
    data = made.data
    with threads(options.threads), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        flops, ceilings = flops_an_image(made), []
        beside = f", {options.together} together" if options.together else ""
        print(f"{machine()}, {options.device}, {options.threads} thread(s)")
        print(
            f"{options.network}: batches of {data.batch_size}, augmentation {data.augmentation}, {options.precision}"
            f"{', compiled' if options.compile else ''}{beside}, {made.ticket.density:.0%} of the weights; "
            f"{options.steps} steps, of plain {options.plain_steps}"
        )
        found: dict[str, list[float]] = {"level": [], "plain": []}
        for pair in range(-1, options.pairs):
            # The first round, which moves the data to the device, chooses kernels and compiles, is not counted.
            ceilings.append(ceiling(options))
            rates = {"level": level(made, options), "plain": plain(made, options)}
            if pair >= 0:
                print(f"pair {pair}: " + ", ".join(f"{k} {v:,.0f} images/s" for k, v in rates.items()), flush=True)
                for name, rate in rates.items():
                    found[name].append(rate)
    most = max(ceilings)
    print(f"{flops / 1e6:,.0f} MFLOP an image; ceiling {most / 1e12:.3g} TFLOP/s; median (min-max):")
    for name, values in found.items():
        share = statistics.median(values) * flops / most
        print(f"  {name} {spread(values, ',.0f')} images/s, {share:.1%} of the ceiling")
    ratios = [ours / theirs for ours, theirs in zip(*found.values(), strict=True)]
    print(f"  level / plain {spread(ratios, '.2f')}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="Conv2", choices=NETWORKS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--compile", action="store_true", help="the level's network")
    parser.add_argument("--together", type=int, default=0, metavar="N", help="N replicates' levels at once")
    parser.add_argument("--steps", type=int, default=500, help="of the level")
    parser.add_argument("--plain-steps", type=int, default=100, help="of the plain loop")
    parser.add_argument("--plain-workers", type=int, default=0, help="of its DataLoader")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--density", type=float, default=0.8, help="of the mask")
    options = parser.parse_args()
    for name, least in {"steps": 1, "plain_steps": 2, "pairs": 1, "threads": 1}.items():
        if getattr(options, name) < least:
            parser.error(f"{name} must be {least} or more")
    return options


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None

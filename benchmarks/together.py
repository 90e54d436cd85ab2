"""What a step of a member costs in a stack, beside the same networks trained one after another.

    python -m benchmarks.together [--network LeNet300] [--members 1 5 20] [--device cpu] [--graph] [--steps 200]

Members differ in weights, masks and orders; all take Adam or SGD as the network does by default, batches of 60 cut from
tensors on the device, and a random mask held by a MaskKeeper. `alone` is a plain loop over each member in turn; `stack`
all of them by StepRunner; `graph` (with --graph, on a CUDA device) the same, replayed as a CUDA graph. A pair runs each
once, and every ratio is of two times of one pair. The evaluation is of 5,000 images by every member: alone in turn, and
by `Stack.predict`. The images are random numbers.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from benchmarks.task import BATCH, machine, spread, threads, wait
from lth_lightning import models
from lth_lightning.models import Classifier
from lth_lightning.models.stack import Stack, StepRunner, stack_masks
from lth_lightning.pruning import Mask, MaskKeeper, weight_layers

SHAPES = {"LeNet300": (1, 28, 28), "Conv2": (3, 32, 32), "Conv4": (3, 32, 32), "Conv6": (3, 32, 32)}
IMAGES, EVALUATED = 20_000, 5_000

Way = Callable[[Tensor], object]
"""Trains every member on the samples [steps, R, B]."""


def start(network: str, seed: int, density: float) -> tuple[Classifier, Mask]:
    """A model and a random mask."""
    torch.manual_seed(seed)
    model: Classifier = getattr(models, network)()
    parameters = dict(model.net.named_parameters())
    names = [layer.name for layer in weight_layers(model.net)]
    return model, {name: torch.rand(parameters[name].shape) < density for name in names}


def alone(members: list[tuple[Classifier, Mask]], images: Tensor, labels: Tensor) -> Way:
    """Each member's steps by a plain loop, one member after another."""
    optimizers: list[Optimizer] = []
    for model, mask in members:
        model.to(images.device)
        optimizers.append(model.optimizer(model.net.parameters()))
        MaskKeeper(model.net, mask).attach(optimizers[-1:])

    def train(index: Tensor) -> None:
        for (model, _), optimizer, rows in zip(members, optimizers, index.unbind(1), strict=True):
            total = torch.zeros((), device=images.device)
            for row in rows:
                optimizer.zero_grad()
                loss = cross_entropy(model.net(images.index_select(0, row)), labels.index_select(0, row))
                loss.backward()
                optimizer.step()
                total += loss.detach()

    return train


def together(members: list[tuple[Classifier, Mask]], images: Tensor, labels: Tensor, graph: bool) -> Way:
    """All members' steps by a stack."""
    stack = Stack([model.net for model, _ in members]).to(images.device)
    optimizer = members[0][0].optimizer(stack.parameters())
    MaskKeeper(stack, stack_masks([mask for _, mask in members])).attach([optimizer])
    return StepRunner(stack, optimizer, images, labels, BATCH, graph=graph).run


def seconds(device: str, work: Callable[[], object]) -> float:
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def training(options: argparse.Namespace, count: int, images: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Microseconds of one member's step, by way, one a pair."""

    def fresh() -> list[tuple[Classifier, Mask]]:
        return [start(options.network, seed, options.density) for seed in range(count)]

    ways = {"alone": alone(fresh(), images, labels), "stack": together(fresh(), images, labels, graph=False)}
    if options.graph:
        ways["graph"] = together(fresh(), images, labels, graph=True)
    index = torch.randint(len(labels), (options.steps, count, BATCH), device=images.device)
    micros: dict[str, list[float]] = {name: [] for name in ways}
    for pair in range(-1, options.pairs):
        for name, way in ways.items():
            # The first round, of which a graph is captured, is not counted.
            part = index if pair >= 0 else index[:6]
            taken = seconds(options.device, lambda way=way, part=part: way(part))  # type: ignore[misc]
            if pair >= 0:
                micros[name].append(1e6 * taken / options.steps / count)
    return micros


def evaluation(options: argparse.Namespace, count: int, images: Tensor) -> dict[str, list[float]]:
    """Microseconds of one member's evaluation, by way, one a pair."""
    nets = [start(options.network, seed, options.density)[0].net.to(images.device) for seed in range(count)]
    stack = Stack(nets)

    @torch.no_grad()
    def each() -> None:
        for net in nets:
            net(images)

    ways = {"alone": each, "stack": lambda: stack.predict(images)}
    micros: dict[str, list[float]] = {name: [] for name in ways}
    for pair in range(-1, options.pairs):
        for name, way in ways.items():
            taken = seconds(options.device, way)
            if pair >= 0:
                micros[name].append(1e6 * taken / count)
    return micros


def report(what: str, count: int, micros: dict[str, list[float]]) -> None:
    medians = ", ".join(f"{name} {statistics.median(values):.0f}" for name, values in micros.items())
    ratios = []
    for name in list(micros)[1:]:
        over = [first / second for first, second in zip(micros["alone"], micros[name], strict=True)]
        ratios.append(f"alone / {name} {spread(over, '.2f')}")
    print(f"{count:3} members, us of one's {what}: {medians}; {', '.join(ratios)}", flush=True)


def main() -> None:
    options = parse()
    print(f"{machine()}, {options.device}, {options.threads} thread(s)")
    print(f"{options.network}, {options.pairs} pairs of {options.steps} steps, {options.density:.0%} of the weights")
    images = torch.randn(IMAGES, *SHAPES[options.network], generator=torch.Generator().manual_seed(0))
    images = images.to(options.device)
    labels = torch.randint(10, (IMAGES,), device=options.device)
    with threads(options.threads):
        for count in options.members:
            report("step", count, training(options, count, images, labels))
            report("evaluation", count, evaluation(options, count, images[:EVALUATED]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="LeNet300", choices=list(SHAPES))
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--graph", action="store_true", help="also replayed as a CUDA graph")
    parser.add_argument("--steps", type=int, default=200, help="of every member")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--density", type=float, default=0.5, help="of the masks")
    options = parser.parse_args()
    if options.graph and options.device != "cuda":
        parser.error("--graph needs --device cuda")
    return options


if __name__ == "__main__":
    main()

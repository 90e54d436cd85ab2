"""What sparsity buys: a training step and an evaluation of LeNet-300-100 at each density, by each of `pruning.kernels`.

    python -m benchmarks.sparsity [--run lightning_logs/lenet/version_0] [--beyond 12] [--threads 1]

masked    whole matrices, multiplied by the mask after each step; a network without a mask takes a few percent less
compact   whole matrices without dead units and inputs (`lth_lightning.pruning.compact`), masked
csr       products with the survivors alone where that gains (`lth_lightning.pruning.csr`); torch's own differentiation
          of such products (`torch.sparse.mm`) is slower than whole matrices down to 0.5% of the weights

Densities are the levels of a run's first replicate and, `--beyond` these, further cuts of the last one's trained
weights by magnitude with no training in between. Without `--run`, all are cuts of initial weights: that is as good for
`csr`, to which density matters, but only a run tells which parts of a trained network are dead.

A step is forward, backward, fused Adam and the mask's multiplication, in batches of 60 random images; an evaluation is
the logits of 5,000. The ways take turns, all from the same weights; that they train to the same ones is checked in
float64. Times are medians over the rounds, ratios medians of each round's masked time over the way's own. With one
thread it is CPU time, which other work on the machine disturbs less.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.task import BATCH, RATE, machine, threads
from lth_lightning.files import read_pt
from lth_lightning.models import LeNet300
from lth_lightning.pruning import MaskKeeper, Schedule, Ticket, Weights, snapshot
from lth_lightning.pruning.compact import compact_
from lth_lightning.pruning.csr import csr_

EVALUATED = 5000
WAYS = {"masked": lambda _model, mask: mask, "compact": compact_, "csr": csr_}
Times = dict[str, list[tuple[float, float]]]
"""By way: microseconds a step and milliseconds an evaluation, round by round."""


class Contender:
    """One way to train a ticket, with its optimizer."""

    def __init__(self, way: str, ticket: Ticket, dtype: torch.dtype = torch.float32) -> None:
        self.model = LeNet300()
        ticket.apply(self.model)
        keeper = MaskKeeper(self.model, WAYS[way](self.model.to(dtype), ticket.mask))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=True)
        keeper.attach([self.optimizer])

    def train(self, images: Tensor, labels: Tensor, steps: int) -> None:
        """Steps of one batch each, [steps * BATCH] samples."""
        for x, y in zip(images[: steps * BATCH].split(BATCH), labels.split(BATCH), strict=False):
            self.optimizer.zero_grad()
            cross_entropy(self.model(x), y).backward()
            self.optimizer.step()

    @torch.no_grad()
    def evaluate(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.model(images)


def tickets(run: Path | None, beyond: int) -> Iterator[tuple[str, Ticket]]:
    """The levels of the run's first replicate, or a dense network, and what magnitude cuts off beyond."""
    if run:
        folders = sorted(file.parent for file in (run / "replicate_0" / "ticket").glob("level_*/trained.pt"))
        if not folders:
            raise SystemExit(f"{run} has no finished level under replicate_0/ticket: give the folder of a LeNet run.")
        for folder in folders:
            ticket = Ticket.load(folder)
            yield f"level {ticket.level}", ticket
        final: Weights = read_pt(folders[-1] / "trained.pt")["weights"]
    else:
        torch.manual_seed(0)
        final = snapshot(LeNet300())
        ticket = Ticket(Schedule.of(LeNet300(), 0).dense_mask(LeNet300()), final, level=0, density=1.0)
        yield "dense", ticket
    schedule, first = Schedule.of(LeNet300(), beyond, start=ticket.mask), ticket.level
    for level in schedule.levels[1:]:
        mask = schedule.prune(level, ticket.mask, final, ticket.weights)
        ticket = Ticket(mask, ticket.weights, first + level, schedule.density(level))
        yield f"cut {ticket.level}", ticket


def check(ticket: Ticket, images: Tensor, labels: Tensor) -> None:
    """Raise where a way does not train to the masked network's weights, in float64."""
    contenders = {way: Contender(way, ticket, torch.float64) for way in WAYS}
    for contender in contenders.values():
        contender.train(images.double(), labels, 5)
    expected = contenders["masked"].model.state_dict()
    for way, contender in contenders.items():
        found = contender.model.state_dict()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8, msg=f"{way} trains otherwise")


def compare(ticket: Ticket, images: Tensor, labels: Tensor, steps: int, rounds: int) -> Times:
    """Time all ways in turns, after a round that does not count."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    contenders = {way: Contender(way, ticket) for way in WAYS}
    times: Times = {way: [] for way in WAYS}
    for _ in range(1 + rounds):
        for way, contender in contenders.items():
            began = clock()
            contender.train(images, labels, steps)
            trained = clock()
            contender.evaluate(images[:EVALUATED])
            times[way].append((1e6 * (trained - began) / steps, 1e3 * (clock() - trained)))
    return {way: found[1:] for way, found in times.items()}


def head() -> str:
    """What stands above the table."""
    ways = "".join(f"{way:>9}" for way in WAYS) + "  compact      csr"
    titles = (f"{title:^{len(ways)}}" for title in ("us a step, and masked / way", "ms for 5,000 images, and ratios"))
    return f"{'':31}|{'|'.join(titles)}\n{'weights':>18}{'inputs-units':>13}|{ways}|{ways}"


def row(ticket: Ticket, times: Times) -> str:
    """A line of the table: density, what is alive, and times and ratios of steps and of evaluations."""
    model = LeNet300()
    compact_(model, ticket.mask)
    live = "-".join(str(layer.in_features) for layer in model.net if isinstance(layer, nn.Linear))
    text = f"{ticket.density:9.2%}{live:>13}"
    for kind, digits in ((0, 0), (1, 1)):
        found = {way: [pair[kind] for pair in pairs] for way, pairs in times.items()}
        text += "|" + "".join(f"{statistics.median(values):9.{digits}f}" for values in found.values())
        for way in ("compact", "csr"):
            ratios = [masked / own for masked, own in zip(found["masked"], found[way], strict=True)]
            text += f"{statistics.median(ratios):8.2f}x"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run's folder, of LeNet-300-100 on images of 28x28")
    parser.add_argument("--beyond", type=int, help="levels beyond the run's last one; 12, or 27 without a run")
    parser.add_argument("--every", type=int, default=1, help="time one level in so many")
    parser.add_argument("--steps", type=int, default=50, help="in one round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    beyond = options.beyond if options.beyond is not None else 12 if options.run else 27
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(max(EVALUATED, options.steps * BATCH), 1, 28, 28, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    print(f"{machine()}, {options.threads} thread(s)")
    print(f"tickets of {options.run or 'initial weights'}; 'cut' by magnitude, no training in between\n{head()}")
    with threads(options.threads):
        for number, (name, ticket) in enumerate(tickets(options.run, beyond)):
            if number % options.every == 0:
                check(ticket, images, labels)
                times = compare(ticket, images, labels, options.steps, options.rounds)
                print(f"{name:9}{row(ticket, times)}", flush=True)


if __name__ == "__main__":
    main()

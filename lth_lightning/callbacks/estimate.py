"""--dry-run: what a run would do, how long it would take and how much disk it would need."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from rich.markup import escape
from rich.table import Table

from lth_lightning import resume
from lth_lightning.callbacks.agenda import Agenda
from lth_lightning.callbacks.display import Display, duration
from lth_lightning.callbacks.driver import Driver
from lth_lightning.data import TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.pruning import Schedule, weight_layers
from lth_lightning.pruning.layers import others
from lth_lightning.results.record import read_records

TIMED = 20
"""Passes that are timed at most, after as many that are not."""

WARM, LONG = 1.0, 2.0
"""Seconds after which passes that are not timed are enough, and those that are."""

TIMING = "Timing a few steps on this machine …"
"""What is said meanwhile."""


def describe(driver: Driver, display: Display, folder: Path | None = None) -> None:
    """Print the trainings, steps, estimated time and disk of `driver`'s run. Trains, downloads and writes nothing.

    `folder` is the run that it goes on with: its finished trainings are left out.
    """
    console = display.console
    schedule = driver.prepare(fetch=False)
    trainings = driver.plan(folder or Path())
    if folder:
        records = {record.order: record for record in read_records(folder)}
        # What a divergence has stopped is not left.
        trainings = Agenda([each for each in trainings if each.order not in records], records.values()).left
        if not trainings:
            display.note(resume.nothing_left(folder, trainings=len(records)))
            return
    arms = Counter(training.arm for training in trainings)
    table = Table(box=None, pad_edge=False)
    for name in ("level", "weights left", "weights", *arms):
        table.add_column(name, justify="right")
    for level in schedule.levels:
        counts = Counter(training.arm for training in trainings if training.level == level)
        left, density = schedule.weights_remaining(level), schedule.density(level)
        table.add_row(str(level), f"{density:.1%}", f"{left:,}", *(str(counts[arm] or "-") for arm in arms))
    console.print(table)
    model = driver.make_model()
    console.print(_parameters(model, schedule))
    for remark in driver.remarks:
        console.print(remark, markup=False)
    steps = driver.steps
    lengths = [driver.loop.steps_of(training, steps or 0) for training in trainings]
    each = f"{steps:,} steps each" if set(lengths) == {steps} else f"{sum(lengths):,} steps in all"
    each = each if steps else "as many steps each as trainer.max_epochs makes"
    console.print(f"{len(trainings)} trainings of {each}; columns count them by arm.")
    try:
        seconds = seconds_a_training(driver, model, display)
        why = "for this module and data"
    except UserError:
        seconds, why = None, "before the data set's files are there"
    if seconds is None:
        console.print(f"Time: not estimated {why}; the first levels of the run will tell.")
    else:
        workers = min(driver.workers, len({training.line for training in trainings}))
        beside = f", {workers} side by side" if workers > 1 else ""
        whole = seconds * sum(lengths) / (steps or 1) / workers
        console.print(f"Time: about {duration(whole)} on this machine{beside}, judging by a few timed passes.")
    console.print(f"Disk: {megabytes(disk_bytes(driver, model, arms))}.")


def _parameters(model: LightningModule, schedule: Schedule) -> Table:
    """Every parameter of the network: its kind, its shape and the rate at which it is pruned."""
    rates = {name: pool.rate for pool in schedule.pools for name in pool.members}
    layers = {layer.name: layer for layer in weight_layers(model)}
    sources = {name for layer in layers.values() for name in layer.sources or ()}
    outside = others(model)
    table = Table(box=None, pad_edge=False)
    for name in ("parameter", "kind", "shape", "weights", "rate"):
        table.add_column(name, justify="right" if name in ("weights", "rate") else "left", no_wrap=name != "shape")
    for name, parameter in model.named_parameters():
        if name in layers:
            kind = layers[name].kind
        elif name in outside:
            kind = "outside"
        else:
            kind = "makes a weight" if name in sources else "bias or norm"
        rate = f"{rates[name]:g}" if name in rates else "-"
        table.add_row(escape(name), kind, " x ".join(map(str, parameter.shape)) or "1", f"{parameter.numel():,}", rate)
    return table


def seconds_a_training(driver: Driver, model: LightningModule, display: Display) -> float | None:
    """Judged by passes of a throwaway model over one batch and an evaluation; None where it cannot be told."""
    data, steps = driver.datamodule, driver.steps
    if steps is None or not isinstance(data, TensorDataModule):
        return None
    try:
        data.setup("fit")
        images, labels = next(iter(data.train_dataloader()))
        evaluation = next(iter(data.test_dataloader()))[0]
        with display.busy(TIMING):
            model(images)
    except NotImplementedError:  # the module has no `forward`
        return None
    device = driver.device
    model, images, labels = model.to(device), images.to(device), labels.to(device)
    evaluation = evaluation.to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def evaluate(images: torch.Tensor) -> None:
        with torch.no_grad():
            model(images)

    def evaluation_seconds() -> float:
        # A part tells enough of a batch that takes long: it would be the most of the time that is taken here.
        part = evaluation[: len(images)]
        seconds = _time(partial(evaluate, part), 1, device) * len(evaluation) / len(part)
        return seconds if seconds > WARM else _time(partial(evaluate, evaluation), 1, device)

    evaluations = steps / driver.loop.evaluate_every
    with display.busy(TIMING):
        return steps * _time(step, TIMED, device) + evaluations * evaluation_seconds()


def _time(action: Callable[[], None], times: int, device: torch.device) -> float:
    """Seconds of an action: the mean of so many after as many that are not timed, fewer where they take long."""
    count, seconds = _repeat(action, times, WARM, device)
    if count > 1 or seconds < WARM:
        count, seconds = _repeat(action, times, LONG, device)
    return seconds / count


def _repeat(action: Callable[[], None], times: int, enough: float, device: torch.device) -> tuple[int, float]:
    """How often an action was made, and the seconds that it took: so many times, or until there were `enough`."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began, count = time.perf_counter(), 0
    while count < times and time.perf_counter() - began <= enough:
        action()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count, time.perf_counter() - began


def megabytes(number: float) -> str:
    """So many bytes, roughly."""
    return f"about {number / 1e6:,.0f} MB" if number >= 1e6 else "less than 1 MB"


def disk_bytes(driver: Driver, model: LightningModule, arms: Counter[str]) -> float:
    """Masks are a byte a weight; trained weights are kept for the ticket arm; curves and events 300 bytes a row."""
    weights: int = sum(value.nbytes for value in model.state_dict().values())
    mask = sum(pool.size for pool in driver.schedule.pools)
    everything = sum(arms.values())
    kept = everything if driver.loop.save_controls else arms["ticket"]
    rows = (driver.steps or 0) / driver.loop.evaluate_every
    copies = 2 if driver.loop.save_early_stop else 1
    return everything * (mask + 300 * rows + 5000) + (kept * copies + driver.loop.replicates) * weights

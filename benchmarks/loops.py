"""The loops that a level is compared with, written by hand: a bare one, a plain reproduction, an ordinary module.

All train what `task` says on the same images, and validate on all of the validation set every 100 steps and after
the last one. Outside the clock: reading the data, and for `bare` moving and normalizing it, which a run does once for
all of its levels. The first two do not pay for what Lightning's import does to a process.
"""

import contextlib
import copy
import io
import tempfile
import time
import warnings

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from benchmarks.task import BATCH, EVERY, RATE, Timing, lightnings_check, masks, network, wait
from lth_lightning.data import MNIST, Split
from lth_lightning.pruning import Ticket


def is_due(step: int, steps: int) -> bool:
    """Whether an evaluation comes after `step`."""
    return step % EVERY == 0 or step == steps


def cpu(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


@lightnings_check(False)
def bare(data: MNIST, ticket: Ticket, steps: int, device: str = "cpu", own_layers: bool = False) -> Timing:
    """The least that does a level's work: tensors on the device, fused Adam, nothing logged or saved.

    Evaluates as a level does, in batches of 5,000: validation on the way with a snapshot of the best weights; at the
    end the test set and the training set, with the last weights and with the best. `own_layers` takes the package's
    linear layers, so that what is left is the price of everything around the training.
    """
    parts = {"train": data.train, "val": data.val, "test": data.test}
    tensors = {name: (data.normalize(p.images.to(device)), p.labels.to(device)) for name, p in parts.items()}
    counts = dict.fromkeys(tensors, 0)
    torch.manual_seed(0)
    wait(device)
    began = time.perf_counter()
    net = network(ticket, own_layers).to(device)
    named = dict(net.named_parameters())
    weights: list[Tensor] = [named[name] for name, part in masks(ticket).items() if not part.all()]
    factors = [part.to(device, torch.float32) for part in masks(ticket).values() if not part.all()]
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
    images, labels = tensors["train"]

    @torch.no_grad()
    def evaluate(name: str) -> tuple[float, float]:
        counts[name] += 1
        net.eval()
        loss, hits = torch.zeros((), device=device), torch.zeros((), device=device)
        for x, y in zip(*(part.split(5000) for part in tensors[name]), strict=True):
            logits = net(x)
            loss += cross_entropy(logits, y, reduction="sum")
            hits += (logits.argmax(1) == y).sum()
        net.train()
        return float(loss), float(hits)

    best, best_step, snapshot = float("inf"), 0, {}
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
        if weights:
            with torch.no_grad():
                torch._foreach_mul_(weights, factors)
        if is_due(step, steps):
            value, _ = evaluate("val")
            if value < best:
                best, best_step = value, step
                snapshot = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    last = cpu(net)
    evaluate("test")
    evaluate("train")
    if best_step < steps:
        net.load_state_dict(snapshot)
        evaluate("test")
        evaluate("train")
    return Timing(time.perf_counter() - began, steps, counts["val"], counts["test"], last)


class PILImages(Dataset):
    """As torchvision's MNIST: bytes in memory, of which each sample is made a PIL image and then transformed."""

    def __init__(self, split: Split, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = split.images.squeeze(1), split.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), int(self.labels[index])


@lightnings_check(False)
def plain(data: MNIST, ticket: Ticket, steps: int, device: str = "cpu", matched: bool = False) -> Timing:
    """A reproduction as people write it in PyTorch, every part at its default.

    torchvision-style datasets of PIL images with ToTensor and Normalize; DataLoaders of 60 without workers;
    `torch.nn.utils.prune` on every weight; Adam with its default arguments; `loss.item()` each step; every 100 steps
    loss and accuracy on the whole validation set and on the whole test set, and a copy of the best weights.
    `matched` leaves the test set out, so that its evaluations on the way are a level's. Neither evaluates anything
    more at its end, or writes anything, which a level does.
    """
    mean_std = data.mean_std
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean_std.mean, mean_std.std)])
    train = DataLoader(PILImages(data.train, transform), batch_size=BATCH, shuffle=True)
    loaders = {"val": DataLoader(PILImages(data.val, transform), batch_size=BATCH)}
    if not matched:
        loaders["test"] = DataLoader(PILImages(data.test, transform), batch_size=BATCH)
    counts = {"val": 0, "test": 0}
    torch.manual_seed(0)
    wait(device)
    began = time.perf_counter()
    net = network(ticket).to(device)
    for name, mask in masks(ticket).items():
        prune.custom_from_mask(net.get_submodule(name.removesuffix(".weight")), "weight", mask.to(device))
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)

    def evaluate(name: str) -> tuple[float, float]:
        counts[name] += 1
        net.eval()
        loss, hits = 0.0, 0
        with torch.no_grad():
            for images, labels in loaders[name]:
                images, labels = images.to(device), labels.to(device)
                logits = net(images)
                loss += cross_entropy(logits, labels, reduction="sum").item()
                hits += (logits.argmax(1) == labels).sum().item()
        net.train()
        size = len(loaders[name].dataset)  # type: ignore[arg-type]
        return loss / size, hits / size

    best, snapshot, losses, step = float("inf"), {}, [], 0
    while step < steps:
        for images, labels in train:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if is_due(step, steps):
                value = {name: evaluate(name) for name in loaders}["val"][0]
                if value < best:
                    best, snapshot = value, copy.deepcopy(net.state_dict())
            if step == steps:
                break
    assert snapshot
    for name in masks(ticket):
        prune.remove(net.get_submodule(name.removesuffix(".weight")), "weight")
    return Timing(time.perf_counter() - began, steps, counts["val"], counts["test"], cpu(net))


class OrdinaryModule(pl.LightningModule):
    """Somebody's first LightningModule: automatic optimization, the training loss logged each step."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__()
        self.net = network(ticket)
        self.masks = masks(ticket)
        self.validations = 0

    def on_fit_start(self) -> None:
        self.masks = {name: part.to(self.device, torch.float32) for name, part in self.masks.items()}
        self.named = dict(self.net.named_parameters())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        for name, part in self.masks.items():
            self.named[name].mul_(part)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        logits = self.net(batch[0])
        self.log("val_loss", cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.validations += not self.trainer.sanity_checking

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=RATE)


@lightnings_check(True)
def lightning_module(data: MNIST, ticket: Ticket, steps: int, device: str = "cpu") -> Timing:
    """An ordinary LightningModule, DataLoader and Trainer, everything else at Lightning's defaults.

    Its tensors are normalized already, and validation is one batch of 5,000 as in a level: what it costs more is
    Lightning's price of a batch and the DataLoader's. It measures nothing at its end.
    """
    train, val = (TensorDataset(data.normalize(part.images), part.labels) for part in (data.train, data.val))
    torch.manual_seed(0)
    shown = io.StringIO()  # its progress bar and its summary
    wait(device)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(shown),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        module = OrdinaryModule(ticket)
        trainer = pl.Trainer(
            max_steps=steps,
            val_check_interval=EVERY,
            check_val_every_n_epoch=None,
            accelerator="gpu" if device == "cuda" else device,
            devices=1,
            default_root_dir=folder,
        )
        trainer.fit(module, DataLoader(train, batch_size=BATCH, shuffle=True), DataLoader(val, batch_size=5000))
        wait(device)
        seconds = time.perf_counter() - began
    return Timing(seconds, steps, module.validations, 0, cpu(module.net))

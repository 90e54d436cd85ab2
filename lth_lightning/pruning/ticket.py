"""A ticket: a mask and the weights at its rewind point, in one file that can travel."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.files import read_pt, read_text, write_pt
from lth_lightning.place import check_place
from lth_lightning.pruning.layers import weight_layers
from lth_lightning.pruning.mask import Mask
from lth_lightning.pruning.rewind import Weights, check_fits, rewind
from lth_lightning.pruning.ticket_path import no_ticket
from lth_lightning.versions import versions

FORMAT = 1
"""Of every `.pt` file of a run; counted up when a reader of an older one would misread it."""


def read_format(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    """Read a `.pt` file of a run.

    Raises UserError where it is damaged, of another format, lacks a `needed` key, holds something else under a key than
    belongs there, or lies in the place of another training.
    """
    content: Any = read_pt(path)
    known = isinstance(content, dict) and "format" in content
    if known and content["format"] != FORMAT:
        raise UserError(
            f"{path} has format {content['format']}, this version reads format {FORMAT}: update lth_lightning."
        )
    if not known or any(key not in content for key in needed):
        raise UserError(f"{path} is no file of this kind: it lacks one of format, {', '.join(needed)}.")
    found: dict[str, Any] = content
    for key, value in found.items():
        if key in _KINDS and not _KINDS[key](value):
            raise UserError(f"{path} is damaged or no file of this program: its '{key}' is not what belongs there.")
    check_place(path, found)
    return found


def _is_mask(value: Any) -> bool:
    return _is_named(value) and all(
        isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in value.values()
    )


def _is_named(value: Any) -> bool:
    """Whether it is a state dict: beside tensors a module may keep states of its own in it."""
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


_KINDS: dict[str, Callable[[Any], bool]] = {
    "mask": _is_mask,
    "weights": _is_named,
    "level": _is_count,
    "step": _is_count,
    "rewind_step": _is_count,
    "replicate": _is_count,
    "trial": _is_count,
    "seed": lambda value: type(value) is int,
    "density": lambda value: isinstance(value, (int, float)) and 0 < value <= 1,
    "arm": lambda value: isinstance(value, str),
    "experiment": lambda value: isinstance(value, str),
    "config": lambda value: isinstance(value, str),
    "versions": lambda value: isinstance(value, dict),
    "trainer": lambda value: isinstance(value, dict) and isinstance(value.get("optimizer_states"), list),
    "learning_rates": lambda value: isinstance(value, list) and all(isinstance(rate, float) for rate in value),
}
"""Whether the value of a key of a `.pt` file is what belongs there."""


def check_finite(weights: Mapping[str, Any], pruned: Iterable[str], path: Path) -> None:
    """Raise UserError where weights of `path` are not numbers; of `pruned` layers they may not be infinite either.

    A buffer may: a causal attention's mask is.
    """
    names = set(pruned)
    for name, value in weights.items():
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            continue
        if bool(value.isnan().any()) or (name in names and bool(value.isinf().any())):
            raise UserError(
                f"{path} holds weights of '{name}' that are NaN or infinite, with which nothing can be computed."
            )


@dataclass
class Ticket:
    """A mask and the weights that its survivors start from."""

    mask: Mask
    weights: Weights
    """The whole state dict at the rewind point, not masked."""
    level: int
    density: float
    rewind_step: int = 0
    seed: int = 0
    experiment: str = ""
    config: str = ""
    """The resolved config of the run that found it, as YAML text."""
    versions: dict[str, str] = field(default_factory=versions)

    def apply(self, model: nn.Module, source: str = "The ticket") -> None:
        """Put the ticket's weights and zeros into `model`; raises UserError where names or shapes do not fit."""
        self.check(model, source)
        rewind(model, self.weights, self.mask)

    def check(self, model: nn.Module, source: str = "The ticket") -> None:
        """Raise UserError naming the first entry that does not fit `model`."""
        check_fits(model, self.weights, source)
        check_mask(model, self.mask, source)

    def fitted(self, model: nn.Module, source: str = "The ticket") -> "Ticket":
        """The ticket itself, or less its output layer where `model` has another number of classes.

        `model` then keeps an output layer of its own, dense (arXiv 1906.02773 section 3). Raises UserError naming the
        first entry that does not fit otherwise.
        """
        name = next(layer.name for layer in weight_layers(model) if layer.kind == "output")
        own, theirs = dict(model.named_parameters()).get(name), self.weights.get(name)
        if own is None or theirs is None or theirs.shape == own.shape or theirs.shape[1:] != own.shape[1:]:
            self.check(model, source)
            return self
        output = name.removesuffix("weight")
        rest = {key: value for key, value in self.weights.items() if not key.startswith(output)}
        new = {key: value for key, value in model.state_dict().items() if key.startswith(output)}
        mask = {key: part for key, part in self.mask.items() if key != name}
        replace(self, weights={**rest, **new}, mask=mask).check(model, source)
        return replace(self, weights=rest, mask=mask)

    def save(self, path: str | Path) -> None:
        """Write a single `ticket.pt`, loadable with `torch.load(path, weights_only=True)`."""
        write_pt(Path(path), {"format": FORMAT, **self.__dict__})

    @classmethod
    def load(cls, path: str | Path) -> "Ticket":
        """Read a `ticket.pt`, or a level's folder of a run (`…/replicate_0/ticket/level_03`).

        Raises UserError where there is no ticket, or the file is damaged.
        """
        path = Path(path)
        if path.is_dir():
            return cls._from_level(path)
        try:
            content = read_format(path, ("mask", "weights", "level", "density"))
        except UserError as error:
            raise UserError(no_ticket(path, str(error))) from None
        check_shapes(content["mask"], content["weights"], path)
        check_finite(content["weights"], content["mask"], path)
        return cls(**{key: content[key] for key in cls.__dataclass_fields__ if key in content})

    @classmethod
    def _from_level(cls, folder: Path) -> "Ticket":
        if not (folder / "mask.pt").exists():
            raise UserError(no_ticket(folder, f"{folder} holds no ticket, for it has no mask.pt."))
        mask = read_format(folder / "mask.pt", ("mask", "level", "density", "arm"))
        if mask["arm"] != "ticket":
            raise UserError(
                f"{folder} belongs to the control '{mask['arm']}', which is no ticket: give a folder under ticket/."
            )
        # A relative path has fewer folders above it, and a copy may lie right below the root.
        replicate, run, experiment = [*folder.resolve().parents, *[Path("/")] * 4][1:4]
        rewind_point = replicate / "rewind.pt"
        if not rewind_point.exists():
            raise UserError(
                no_ticket(
                    folder,
                    f"{folder} has a mask and no weights that it starts from: there is no {rewind_point}. Copy the "
                    "run, or this folder and its replicate's rewind.pt as they lie in it.",
                )
            )
        point = read_format(rewind_point, ("weights", "step", "seed"))
        check_seed(point, mask.get("seed", point["seed"]), rewind_point)
        check_shapes(mask["mask"], point["weights"], rewind_point)
        check_finite(point["weights"], mask["mask"], rewind_point)
        config = run / "config.yaml"
        return cls(
            mask=mask["mask"],
            weights=point["weights"],
            level=mask["level"],
            density=mask["density"],
            rewind_step=point["step"],
            seed=point["seed"],
            experiment=experiment.name,
            config=read_text(config) if config.exists() else "",
        )


def check_seed(content: Mapping[str, Any], seed: int, path: Path) -> None:
    """Raise UserError where a file is that of a run of another seed; one of an older version need not say."""
    if content.get("seed", seed) != seed:
        raise UserError(f"{path} belongs to another run: its seed is {content['seed']}, and this run's {seed}.")


def check_shapes(mask: Mapping[str, torch.Tensor], weights: Mapping[str, Any], path: Path) -> None:
    """Raise UserError where the weights of `path` are those of another network than `mask`'s."""
    for name, part in mask.items():
        value = weights.get(name)
        if not isinstance(value, torch.Tensor) or value.shape != part.shape:
            raise UserError(f"{path} is that of another network: it has no '{name}' of the shape {tuple(part.shape)}.")


def check_mask(model: nn.Module, mask: Mapping[str, torch.Tensor], source: str) -> None:
    """Raise UserError naming the first part of `mask` that `model` has not, or has in another shape."""
    parameters = dict(model.named_parameters())
    for name, part in mask.items():
        if name not in parameters:
            raise UserError(f"{source} does not fit this network: it masks '{name}', which is not in it.")
        if parameters[name].shape != part.shape:
            theirs, ours = tuple(part.shape), tuple(parameters[name].shape)
            raise UserError(f"{source} does not fit this network: its mask of '{name}' has shape {theirs}, not {ours}.")

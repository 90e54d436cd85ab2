"""The pruning schedule: how many weights of each pool survive at each level, exactly, known before any training."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from lth_lightning.errors import UserError
from lth_lightning.pruning.allocation import Pool, Scope, make_pools, resolve_rates
from lth_lightning.pruning.criteria import Criterion, Evidence, Magnitude
from lth_lightning.pruning.criteria.base import Loss, Samples, Score
from lth_lightning.pruning.layers import Layer, weight_layers
from lth_lightning.pruning.mask import Mask
from lth_lightning.pruning.rewind import rewind
from lth_lightning.signatures import a_kind, named

PAPER_RATES = {"conv": 0.1, "linear": 0.2, "output": 0.1}
"""LTH Fig. 2: the rates a round of Conv-2 and Conv-4; LeNet's are the same, as far as it has such layers."""


@dataclass(frozen=True)
class Schedule:
    """Survivors of each pool at each level.

    Level 0 is where it starts: the dense network, or a given mask.
    """

    layers: tuple[Layer, ...]
    """Those that some pool holds, in the order of the network."""
    pools: tuple[Pool, ...]
    kept: tuple[tuple[int, ...], ...]
    """`kept[level][i]`: how many weights of `pools[i]` survive."""
    unpruned: int
    """Linear and Conv weights outside all pools; they count in every density."""
    total: int
    """All Linear and Conv weights of the network."""
    one_shot: bool = False

    @classmethod
    def of(
        cls,
        model: nn.Module,
        levels: int | None = 15,
        *,
        until_density: float | None = None,
        rates: Mapping[str, float] = PAPER_RATES,
        scope: Scope = "layer",
        exclude: Iterable[str] = (),
        one_shot: bool = False,
        grid: Sequence[float] | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> "Schedule":
        """The schedule for `model`.

        Args:
            model: gives names and sizes; nothing is changed.
            levels: rounds of pruning after level 0.
            until_density: instead of `levels`, go to the first level at or below this density.
            rates: fraction of what is left that goes each round, by kind and by name pattern (LTH Fig. 2).
            scope: `layer` or `global` pools.
            exclude: name patterns of layers that are never pruned.
            one_shot: every level is cut from level 0's trained weights (LTH Fig. 4).
            grid: for one-shot, falling densities of the fastest-pruned layers at levels 1, 2, …; a layer at half the
                rate loses half the fraction (LTH app. G.4). Without it, the levels have the iterative counts.
            start: the mask of level 0, where it is not dense.

        Raises:
            UserError: a level would take nothing from a pool, or all of it; or any of the above is out of range.
        """
        layers = weight_layers(model)
        if not layers:
            raise UserError("This network has no Linear or Conv layer, so there is nothing to prune.")
        total = sum(layer.size for layer in layers)
        found = resolve_rates(layers, rates, exclude)
        pooled = tuple(layer for layer in layers if layer.name in found)
        pools = make_pools(layers, found, scope)
        sizes = {
            layer.name: int(start[layer.name].sum()) if start and layer.name in start else layer.size
            for layer in layers
        }
        first = tuple(sum(sizes[name] for name in pool.members) for pool in pools)
        unpruned = sum(sizes.values()) - sum(first)
        if grid is not None:
            if not one_shot:
                raise UserError("A grid of densities is for one-shot pruning: set one_shot to true, or drop the grid.")
            return cls(pooled, pools, _grid_counts(pools, first, grid), unpruned, total, True)
        kept = [first]
        if until_density is None:
            if levels is None or levels < 0:
                raise UserError(f"The number of levels is {levels}: give 0 or more, or a density to go to.")

            def done() -> bool:
                return len(kept) > levels
        else:
            if not 0 < until_density <= 1:
                raise UserError(f"The density to go to is {until_density}: it is a fraction of 1, such as 0.036.")

            def done() -> bool:
                return sum(kept[-1]) + unpruned <= until_density * total

        while not done():
            kept.append(_next_counts(pools, kept, "--until-density higher" if until_density else "fewer levels"))
        return cls(pooled, pools, tuple(kept), unpruned, total, one_shot)

    @property
    def levels(self) -> range:
        """All levels, 0 first."""
        return range(len(self.kept))

    def weights_remaining(self, level: int) -> int:
        """Linear and Conv weights that survive at `level`, the unpruned layers counted too."""
        return sum(self.kept[level]) + self.unpruned

    def density(self, level: int) -> float:
        """Weights remaining / all Linear and Conv weights (the paper's P_m as a fraction of 1)."""
        return self.weights_remaining(level) / self.total

    def parent(self, level: int) -> int:
        """The level whose trained weights decide `level`'s mask: the one before, or 0 for one-shot."""
        return 0 if self.one_shot else level - 1

    def dense_mask(self, model: nn.Module) -> Mask:
        """Everything survives, for each parameter that some pool holds."""
        parameters = dict(model.named_parameters())
        return {
            name: torch.ones(parameters[name].shape, dtype=torch.bool) for pool in self.pools for name in pool.members
        }

    def prune(
        self,
        level: int,
        mask: Mapping[str, Tensor],
        final: Mapping[str, Tensor],
        initial: Mapping[str, Tensor],
        score: Criterion | None = None,
        generator: torch.Generator | None = None,
        network: Callable[[], nn.Module] | None = None,
        samples: Samples | None = None,
        loss: Loss | None = None,
    ) -> Mask:
        """The mask of `level`, cut from `mask`, the mask of its parent level.

        Args:
            mask: bool tensors by parameter name.
            final: weights by name at the end of the parent level's training (LTH section 2: prune with those, not with
                the early-stop weights).
            initial: weights by name at the rewind point.
            score: the criterion; magnitude by default.
            generator: for scores that draw.
            network: a fresh network of this kind, for criteria that look at more than the weights.
            samples: draws training samples, for criteria that look at the data.
            loss: what the network is trained by; the cross entropy of class logits by default.

        Raises:
            UserError: the criterion needs a network or samples, and there are none; or it gives scores that are not
                finite, of another shape, or all equal within a pool.
        """
        score = score or Magnitude()
        generator = generator or torch.Generator().manual_seed(level)
        new = {name: part.cpu().clone() for name, part in mask.items()}
        evidence = self.evidence(new, final, initial, generator, network, samples, loss)
        for round_ in range(1, score.rounds + 1):
            scores = _scores(score, evidence)
            for pool, end in zip(self.pools, self.kept[level], strict=True):
                alive, flat = _comparable(score, scores, pool, new)
                before = sum(int(mask[name].sum()) for name in pool.members)
                keep = round(before * (end / before) ** (round_ / score.rounds))
                survivors = _highest(flat, alive, keep)
                for name, part in zip(
                    pool.members, survivors.split([new[name].numel() for name in pool.members]), strict=True
                ):
                    new[name] = part.view_as(new[name])
        return new

    def evidence(
        self,
        mask: Mask,
        final: Mapping[str, Tensor],
        initial: Mapping[str, Tensor],
        generator: torch.Generator,
        network: Callable[[], nn.Module] | None = None,
        samples: Samples | None = None,
        loss: Loss | None = None,
    ) -> Evidence:
        """What a criterion sees, from what `prune` takes; `mask` may change between its rounds."""
        evidence = Evidence(self.layers, mask, final, initial, generator, loss=loss)
        # Made and drawn once, however many rounds there are.
        if network:
            evidence.network = partial(_masked, cache(network), initial, mask)
        if samples:
            evidence.samples = cache(samples)
        return evidence

    def check_scores(self, score: Criterion, evidence: Evidence) -> None:
        """Ask `score` once and prune nothing, to learn before a training what `prune` would raise after it."""
        scores = _scores(score, evidence)
        for pool in self.pools:
            _comparable(score, scores, pool, evidence.mask)


def _masked(network: Callable[[], nn.Module], weights: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> nn.Module:
    """A network with `weights`, the pruned ones at 0, in evaluation mode."""
    model = copy.deepcopy(network())
    rewind(model, weights, mask)
    return model.eval()


def _scores(score: Criterion, evidence: Evidence) -> Mapping[str, Tensor]:
    """What `score` returns; raises UserError that names it where that is no dictionary of tensors."""
    found: object = score.scores(evidence)
    if not isinstance(found, Mapping):
        raise UserError(f"{named(score.scores)} returned {a_kind(found)}, not a dictionary of tensors.")
    method = score.__call__ if isinstance(score, Score) else score.scores
    for layer in evidence.layers:
        if layer.name in found and not isinstance(value := found[layer.name], Tensor):
            raise UserError(
                f"{named(method)} returned {a_kind(value)} for '{layer.name}', not a tensor of the weight's shape."
            )
    return found


def _comparable(
    score: Criterion, scores: Mapping[str, Tensor], pool: Pool, mask: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Of a pool's weights, flat: which are alive, and their scores.

    Raises UserError where the scores cannot be compared, or are all equal: they would go by their position.
    """
    name = type(score).__name__
    alive = torch.cat([mask[member].flatten() for member in pool.members])
    flat = torch.cat([_checked(name, scores, member, mask[member]) for member in pool.members])
    left = flat[alive]
    if len(left) > 1 and bool((left == left[0]).all()):
        raise UserError(
            f"{name} gives all {len(left)} weights of '{pool.name}' the same score, {left[0].item():g}, so that their "
            "position would decide which go: exclude that layer, or use another criterion."
        )
    return alive, flat


def _checked(criterion: str, scores: Mapping[str, Tensor], name: str, mask: Tensor) -> Tensor:
    """The scores of one layer, flat; raises UserError where they cannot be compared."""
    found = scores.get(name)
    if found is None or found.shape != mask.shape:
        given = "none" if found is None else f"some of shape {tuple(found.shape)}"
        raise UserError(
            f"{criterion} gives {given} for '{name}': give one number for each of its weights {tuple(mask.shape)}."
        )
    flat = found.detach().cpu().flatten()
    if not bool(flat[mask.flatten()].isfinite().all()):
        raise UserError(
            f"{criterion} gives scores for '{name}' that are not finite, and cannot be compared: use another criterion."
        )
    return flat


def _highest(scores: Tensor, alive: Tensor, keep: int) -> Tensor:
    """Of the `alive` entries the `keep` with the highest scores, as a bool tensor.

    Sorting positions (stably) rather than comparing with a threshold: a mass of equal scores, such as those of pixels
    that are always black, loses exactly as many as asked, the first in order first.
    """
    places = alive.nonzero().squeeze(1)
    order = torch.argsort(scores[places], stable=True)
    survivors = torch.zeros_like(alive)
    survivors[places[order[len(places) - keep :]]] = True
    return survivors


def _next_counts(pools: Sequence[Pool], kept: Sequence[tuple[int, ...]], remedy: str) -> tuple[int, ...]:
    """One more round of iterative pruning: `round(rate * remaining)` of each pool go."""
    level = len(kept)
    counts = []
    for pool, left in zip(pools, kept[-1], strict=True):
        gone = round(pool.rate * left)
        _check(pool, level, left, left - gone, f"the schedule can go to level {level - 1}: ask for {remedy}")
        counts.append(left - gone)
    return tuple(counts)


def _grid_counts(pools: Sequence[Pool], first: tuple[int, ...], grid: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    fastest = max(pool.rate for pool in pools)
    kept = [first]
    for level, density in enumerate(grid, start=1):
        if not 0 < density < 1:
            raise UserError(f"The grid holds {density}: its densities are fractions of 1, above 0 and below 1.")
        if level > 1 and density >= grid[level - 2]:
            raise UserError(f"The grid has {density} after {grid[level - 2]}: give falling densities.")
        counts = []
        for pool, size in zip(pools, first, strict=True):
            left = size - round((1 - density) * pool.rate / fastest * size)
            _check(pool, level, size, left, "change the grid's densities")
            counts.append(left)
        kept.append(tuple(counts))
    return tuple(kept)


def _check(pool: Pool, level: int, before: int, after: int, remedy: str) -> None:
    if after in (0, before):
        what = "nothing" if after == before else "everything"
        raise UserError(
            f"Level {level} would take {what} from '{pool.name}' ({before} weights left, rate {pool.rate}); {remedy}."
        )

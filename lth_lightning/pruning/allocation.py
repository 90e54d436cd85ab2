"""How fast each layer is pruned, and which layers share a pool."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lth_lightning.errors import UserError
from lth_lightning.pruning.layers import KINDS, Layer, match

Scope = Literal["layer", "global"]


@dataclass(frozen=True)
class Pool:
    """Weights whose scores are compared with one another, and lose one rate a round."""

    members: tuple[str, ...]
    """Parameter names, in the order of the network."""
    size: int
    rate: float

    @property
    def name(self) -> str:
        return self.members[0] if len(self.members) == 1 else "global pool"


def resolve_rates(layers: Sequence[Layer], rates: Mapping[str, float], exclude: Iterable[str] = ()) -> dict[str, float]:
    """The rate of each layer that is pruned: first by kind (`conv`, `linear`, `output`), then by name pattern.

    A later pattern wins over an earlier one. A layer whose kind has no rate, or that `exclude` names, is not pruned.

    Raises UserError for a rate outside (0, 1), a pattern that matches nothing, rates that prune nothing, or a rate for
    a weight that is no parameter.
    """
    for key, rate in rates.items():
        if not 0 < rate < 1:
            raise UserError(
                f"The rate of '{key}' is {rate}: a rate is the fraction pruned a round, above 0 and below 1."
            )
    found = {layer.name: rates[layer.kind] for layer in layers if layer.kind in rates}
    for pattern, rate in rates.items():
        if pattern not in KINDS:
            found.update(dict.fromkeys(match(pattern, layers), rate))
    for pattern in exclude:
        for name in match(pattern, layers):
            found.pop(name, None)
    if not found:
        raise UserError(
            "Nothing is left to prune: give a rate to a kind of layer that this network has, or exclude less."
        )
    for layer in layers:
        if layer.name in found and layer.sources is not None:
            source = f", but computed from {', '.join(layer.sources)}" if layer.sources else ""
            raise UserError(
                f"'{layer.name}' cannot be pruned: it is no parameter{source}. Undo weight_norm, spectral_norm, "
                "parametrizations or torch.nn.utils.prune in that layer, or leave it dense with pruning.exclude."
            )
    return {layer.name: found[layer.name] for layer in layers if layer.name in found}


def make_pools(layers: Sequence[Layer], rates: Mapping[str, float], scope: Scope) -> tuple[Pool, ...]:
    """One pool a layer (LTH section 2, "layer-wise"), or one of all of them (LTH section 4, "global").

    Raises UserError where a global pool's layers have different rates.
    """
    sizes = {layer.name: layer.size for layer in layers}
    if scope == "layer":
        return tuple(Pool((name,), sizes[name], rate) for name, rate in rates.items())
    distinct = sorted(set(rates.values()))
    if len(distinct) > 1:
        raise UserError(
            f"A global pool has one rate, but its layers have {distinct}: give all kinds the same rate, "
            "exclude the others, or use layer-wise pools (scope: layer)."
        )
    return (Pool(tuple(rates), sum(sizes[name] for name in rates), distinct[0]),)

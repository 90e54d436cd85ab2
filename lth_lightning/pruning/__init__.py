"""Masks, scores, pools, schedules, rewinding and tickets, in plain PyTorch.

schedule = Schedule.of(model, levels=15)
start, mask = snapshot(model), schedule.dense_mask(model)
for level in schedule.levels[1:]:
    train(model, MaskKeeper(model, mask))     # calls keeper.attach([optimizer]) once it has made its optimizer
    mask = schedule.prune(level, mask, model.state_dict(), start)
    rewind(model, start, mask)
"""

from lth_lightning.pruning.criteria import (
    SNIP,
    Criterion,
    Evidence,
    GraSP,
    LargeFinalSameSign,
    LargeInit,
    LargeInitLargeFinal,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    Random,
    RandomButOutput,
    Score,
    SmallFinal,
    SmallInit,
    SmallInitSmallFinal,
    SynFlow,
)
from lth_lightning.pruning.layers import Layer, weight_layers
from lth_lightning.pruning.mask import Mask, MaskKeeper, remaining, same_counts_shuffled
from lth_lightning.pruning.rewind import Weights, rewind, snapshot
from lth_lightning.pruning.schedule import Schedule
from lth_lightning.pruning.ticket import Ticket

__all__ = [
    "SNIP",
    "Criterion",
    "Evidence",
    "GraSP",
    "LargeFinalSameSign",
    "LargeInit",
    "LargeInitLargeFinal",
    "Layer",
    "Magnitude",
    "MagnitudeIncrease",
    "Mask",
    "MaskKeeper",
    "Movement",
    "Random",
    "RandomButOutput",
    "Schedule",
    "Score",
    "SmallFinal",
    "SmallInit",
    "SmallInitSmallFinal",
    "SynFlow",
    "Ticket",
    "Weights",
    "remaining",
    "rewind",
    "same_counts_shuffled",
    "snapshot",
    "weight_layers",
]

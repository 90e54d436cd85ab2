"""The run folder: layout, records and the results table."""

from lth_lightning.results.layers import LayerCount, layer_counts, layers_table
from lth_lightning.results.record import Record, read_records
from lth_lightning.results.terminal import results_table
from lth_lightning.results.training import TICKET, Training
from lth_lightning.results.winning import verdict

__all__ = [
    "TICKET",
    "LayerCount",
    "Record",
    "Training",
    "layer_counts",
    "layers_table",
    "read_records",
    "results_table",
    "verdict",
]

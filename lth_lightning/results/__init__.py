"""The run folder: layout, records and the results table."""

from lth_lightning.results.record import Record, read_records
from lth_lightning.results.summary import verdict
from lth_lightning.results.terminal import results_table
from lth_lightning.results.training import TICKET, Training

__all__ = ["TICKET", "Record", "Training", "read_records", "results_table", "verdict"]

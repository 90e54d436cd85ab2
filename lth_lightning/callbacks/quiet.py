"""Lightning's notices and tips are for a single fit; a run makes hundreds."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, Lightning logs errors alone, and warns of nothing that a run sees to."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    hook = threading.excepthook

    def tell(failed: threading.ExceptHookArgs) -> None:
        # TensorBoard's writer keeps its error, and raises it in the thread that writes to it next.
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            hook(failed)

    threading.excepthook = tell
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (".*LeafSpec.*",):
                warnings.filterwarnings("ignore", message)
            warnings.filterwarnings("ignore", module="pytorch_lightning.*")
            yield
    finally:
        threading.excepthook = hook
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

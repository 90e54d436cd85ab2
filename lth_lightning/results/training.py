"""The unit that is scheduled, resumed and recorded."""

from dataclasses import dataclass
from pathlib import Path

from lth_lightning.seeding import derive_seed

TICKET = "ticket"
"""The arm that finds tickets; every other arm is a control."""

Line = tuple[int, str, int]
"""Replicate, arm and trial."""


@dataclass(frozen=True, order=True)
class Training:
    """One fit: (replicate, arm, trial, level), and the run's folder it belongs to."""

    replicate: int
    arm: str
    trial: int
    level: int
    run: Path

    @property
    def is_ticket(self) -> bool:
        return self.arm == TICKET

    @property
    def line(self) -> Line:
        """The levels of one line follow one another, and stop where one diverges."""
        return self.replicate, self.arm, self.trial

    @property
    def order(self) -> tuple[int, str, int, int]:
        """Replicate, arm, trial and level, as its `Record.order`."""
        return *self.line, self.level

    @property
    def identity(self) -> dict[str, int | str]:
        """What each of its files says of the training that it belongs to."""
        return {"replicate": self.replicate, "arm": self.arm, "trial": self.trial, "level": self.level}

    @property
    def label(self) -> str:
        """`ticket`, or a control's name and trial, such as `random_reinit_0`: the name of its folder."""
        return TICKET if self.is_ticket else f"{self.arm}_{self.trial}"

    @property
    def replicate_folder(self) -> Path:
        return self.run / f"replicate_{self.replicate}"

    @property
    def folder(self) -> Path:
        return self.replicate_folder / self.label / f"level_{self.level:02d}"

    @property
    def version(self) -> str:
        """The folder relative to the run's: its name as a TensorBoard run."""
        return self.folder.relative_to(self.run).as_posix()

    def ticket(self, level: int) -> "Training":
        """The ticket arm's training of this replicate at `level`."""
        return Training(self.replicate, TICKET, 0, level, self.run)

    def seed(self, root: int, *what: int | str) -> int:
        """The seed of a draw of this training, `what` it is for named behind."""
        return derive_seed(root, self.replicate, self.arm, self.trial, self.level, *what)

    def __str__(self) -> str:
        return f"replicate {self.replicate} {self.label} level {self.level}"

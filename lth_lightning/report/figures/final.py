"""How accurate networks are at the end of their training (LTH Fig. 4b, 5, 12, 14)."""

from collections.abc import Sequence

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import tables
from lth_lightning.report.lines import Line


def draw(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Test and training accuracy after the last step, against the weights remaining; None where nothing is trained."""
    return tables.draw(
        lines,
        ("final_test_acc", "final_train_acc"),
        name="final",
        title="Accuracy at the end of training",
        reads=(
            "From left to right ever fewer weights remain. Where networks fit all of their training samples, they "
            "differ in the test accuracy alone: those that are higher there generalize better."
        ),
        paper="LTH Fig. 4b, 5, 12, 14",
    )

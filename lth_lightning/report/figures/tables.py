"""Figures of columns of results.csv: what several kinds of figures share."""

from collections.abc import Sequence

from lth_lightning.report import notes, style
from lth_lightning.report.figure import Picture
from lth_lightning.report.figures import panels, rows
from lth_lightning.report.lines import Line


def draw(
    lines: Sequence[Line],
    columns: Sequence[str],
    *,
    name: str,
    title: str,
    reads: str,
    paper: str,
    axis: panels.Axis = "density",
) -> Picture | None:
    """A figure of some of `panels.COLUMNS`; None where no line has any of them.

    `reads` begins the caption, and says how to read an axis of weights.
    """
    with style.styled():
        shown = [panel for column in columns if not (panel := panels.of_column(lines, column)).is_empty]
        if not shown:
            return None
        there = [column for column in columns if any(line.table()[column].notna().any() for line in lines)]
        if rows.fit(shown):
            figure, cut = rows.draw(lines, shown)
            reads = "Each row is a network of one density, which is in its name."
        else:
            figure, cut = panels.draw(lines, shown, axis)
        gaps = notes.of_table(lines, {column: panels.COLUMNS[column] for column in there})
        if "early_stop_step" in there:
            gaps.append(notes.falling(lines))
        spread = "Points are means over trials, bars their minimum and maximum."
        caption = " ".join(part for part in (reads, spread, *cut, *gaps) if part)
        return Picture(name, title, caption, panels.alt(lines, shown, axis), paper, figure)

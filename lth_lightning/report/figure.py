"""A figure of a report, as it is written into files and onto the page."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        name: the stem of its files, such as `early_stop`.
        title: what it shows, in a few words.
        caption: how to read it, in a sentence or three; what is missing from it is said there too.
        alt: what is to be seen in it, for those who cannot: the trend of each line in numbers.
        paper: the figures of the paper that it is drawn like, such as `LTH Fig. 1, 4a, 5`.
        figure: by matplotlib, not through pyplot, so that nothing is shared between figures.
    """

    name: str
    title: str
    caption: str
    alt: str
    paper: str
    figure: Figure


@dataclass(frozen=True)
class Choice:
    """What the reader asked to see, where figures choose for themselves otherwise.

    Attributes:
        densities: of curves and distributions, as fractions of 1; each is drawn at the nearest level.
        steps: at which accuracies are compared (LTH Fig. 7 and 8).
    """

    densities: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()

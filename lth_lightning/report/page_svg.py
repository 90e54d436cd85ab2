"""matplotlib's SVGs as parts of an HTML page: panel by panel, in its colours, light and dark, with their own names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.offsetbox import DrawingArea
from matplotlib.transforms import Bbox

LIGHT, DARK = ("#262626", "#ffffff"), ("#e8e6e1", "#17191c")
"""Ink and paper, as in page.css; matplotlib draws text and axes in the ink of the light ones."""

VISIBLE = 3.0
"""The contrast that a line needs to be seen (WCAG 2.2, 1.4.11)."""

_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_DROPPED = ("metadata", "style", "script")


ROOM = 3.0
"""Points around a panel: letters are as wide as the reader's font makes them."""


@dataclass(frozen=True)
class Entry:
    """What a line of the legend looks like, and what it is."""

    handle: Markup
    label: str


@dataclass(frozen=True)
class Drawing:
    """A figure of the page, whose panels stand beside or below one another as there is room.

    Attributes:
        blocks: a heading, which may be empty, and the panels below it.
        wide: width of a panel, in points.
        title: of the legend below all panels; empty where it has none.
        entries: of that legend.
    """

    blocks: Sequence[tuple[str, Sequence[Markup]]]
    wide: float
    title: str
    entries: Sequence[Entry]


def split(figure: Figure, svg: str, prefix: str) -> Drawing:
    """The panels and the legend of a figure that has just been saved as `svg`.

    All panels have the same width and scale, and those that stood in one row the same height, so that their axes are
    level wherever the page puts them side by side.
    """
    root = cleaned(svg, prefix)
    high = float(root.attrib["viewBox"].split()[3])
    groups = list(_groups(root, f"{prefix}axes_"))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    before, figure.dpi = figure.dpi, 72  # as in the SVG, whose unit is the point
    try:
        boxes = _boxes(shown)
        legend = next(iter(figure.legends), None)
        handles = [box.get_window_extent() for box in legend.findobj(DrawingArea)] if legend else []
    finally:
        figure.dpi = before
    panels = [_image([group], box, high, "plot") for group, box in zip(groups, boxes, strict=True)]
    if panels:  # what groups refer to, wherever they are on the page
        panels[0].extend(root.findall("defs"))
    by_axes = dict(zip(shown, map(_text, panels), strict=True))
    entries = []
    if legend:
        (group,) = [found for found in _groups(root, f"{prefix}legend_") if found not in _within(groups)]
        texts = legend.get_texts()
        for elements, box, text in zip(_entries(group, prefix), handles, texts, strict=True):
            entries.append(
                Entry(_text(_image(elements, box, high, "handle")), str(text.get_label() or text.get_text()))
            )
    blocks = []
    parts: list[FigureBase] = [*figure.subfigs] or [figure]
    for part in parts:
        own = [image for axes, image in by_axes.items() if axes.figure is part]
        blocks.append((part.get_suptitle(), own))
    return Drawing(
        blocks=[(heading, own) for heading, own in blocks if own],
        wide=boxes[0].width if boxes else 0.0,
        title=legend.get_title().get_text() if legend else "",
        entries=entries,
    )


def _groups(element: Element, start: str) -> Iterator[Element]:
    """The outermost groups whose ids begin so."""
    for child in element:
        if child.get("id", "").startswith(start):
            yield child
        else:
            yield from _groups(child, start)


def _within(groups: Sequence[Element]) -> list[Element]:
    return [element for group in groups for element in group.iter()]


def _boxes(shown: Sequence[Axes]) -> list[Bbox]:
    """What each panel takes, in points: its axes, and around them what the most demanding panel needs."""
    inner = [axes.get_window_extent() for axes in shown]
    outer = [axes.get_tightbbox() or box for axes, box in zip(shown, inner, strict=True)]
    pairs = list(zip(inner, outer, strict=True))
    left = max((axes.x0 - all_of.x0 for axes, all_of in pairs), default=0) + ROOM
    wide = max((axes.width + all_of.x1 - axes.x1 for axes, all_of in pairs), default=0) + left + ROOM
    found = []
    for axes, _ in pairs:
        row = [all_of for other, all_of in pairs if abs(other.y0 - axes.y0) < axes.height / 2]
        low, top = min(box.y0 for box in row) - ROOM, max(box.y1 for box in row) + ROOM
        found.append(Bbox.from_extents(axes.x0 - left, low, axes.x0 - left + wide, top))
    return found


def _entries(legend: Element, prefix: str) -> Iterator[list[Element]]:
    """The drawn elements of each entry: those that come before its text. Before a title there are none."""
    before: list[Element] = []
    for child in legend:
        if not child.get("id", "").startswith(f"{prefix}text_"):
            before.append(child)
        else:
            if before:
                yield before
            before = []


def _image(elements: Sequence[Element], box: Bbox, high: float, kind: str) -> Element:
    view = f"{box.x0:.2f} {high - box.y1:.2f} {box.width:.2f} {box.height:.2f}"
    image = Element("svg", {"class": kind, "viewBox": view, "aria-hidden": "true"})
    image.extend(elements)
    return image


def _text(element: Element) -> Markup:
    return Markup(ElementTree.tostring(element, encoding="unicode"))


def cleaned(svg: str, prefix: str) -> Element:
    """`svg` for an HTML page.

    Ids get a prefix, for several images on a page share matplotlib's. Coordinates keep two digits, a hundredth of a
    point. Text and axes take the colour of the text around them.
    """
    root = ElementTree.fromstring(svg)
    for element in list(root.iter()):
        for child in [child for child in element if _bare(child.tag) in _DROPPED]:
            element.remove(child)
    for element in root.iter():
        element.tag = _bare(element.tag)
        attributes = {_bare(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: _attribute(name, value, prefix) for name, value in attributes.items()})
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None
    return root


def dark_colours(svgs: Iterable[str]) -> str:
    """A style sheet that gives the colours of all `svgs` that are lost on a dark page a lighter one there."""
    found = sorted({colour for svg in svgs for colour in _COLOUR.findall(svg)} - {*LIGHT, "#000000"})
    rules = [f"--c{colour[1:]}: {dark};" for colour in found if (dark := _dark(colour)) != colour]
    if not rules:
        return ""
    return f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {' '.join(rules)} }} }}\n"


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _bare(name: str) -> str:
    """A name without its namespace: HTML's parser knows which elements are SVG's."""
    return name.rsplit("}", 1)[-1]


def _attribute(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else value
    if name in ("d", "x", "y", "points"):
        return re.sub(r"(\.\d\d)\d+", r"\1", value)
    value = value.replace("url(#", f"url(#{prefix}")
    return _COLOUR.sub(_follow, value) if name == "style" else value


def _follow(match: re.Match[str]) -> str:
    colour = match[0]
    if colour in (LIGHT[0], "#000000"):
        return "currentColor"
    if colour == LIGHT[1]:
        return "var(--paper)"
    return colour if _dark(colour) == colour else f"var(--c{colour[1:]}, {colour})"


def _dark(colour: str) -> str:
    """What a colour is on a dark page: a grey as far between ink and paper as it was, others as light as needed."""
    red, green, blue = _parts(colour)
    if max(red, green, blue) - min(red, green, blue) <= 8:
        ink, paper = _parts(LIGHT[0])[0], _parts(LIGHT[1])[0]
        return _mix(DARK[0], DARK[1], min(1.0, max(0.0, (red - ink) / (paper - ink))))
    share = 0.0
    while contrast(_mix(colour, "#ffffff", share), DARK[1]) < VISIBLE:
        share += 0.05
    return _mix(colour, "#ffffff", share)


def _mix(one: str, other: str, share: float) -> str:
    parts = [round(a + share * (b - a)) for a, b in zip(_parts(one), _parts(other), strict=True)]
    return "#" + "".join(f"{part:02x}" for part in parts)


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in _parts(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

"""matplotlib's SVGs as a part of an HTML page: in its colours, light and dark, and with names of their own."""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from markupsafe import Markup

LIGHT, DARK = ("#262626", "#ffffff"), ("#e8e6e1", "#17191c")
"""Ink and paper, as in page.css; matplotlib draws text and axes in the ink of the light ones."""

VISIBLE = 3.0
"""The contrast that a line needs to be seen (WCAG 2.2, 1.4.11)."""

_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_DROPPED = ("metadata", "style", "script")


def inline(svg: str, prefix: str, alt: str) -> Markup:
    """`svg` as an element of an HTML page, named `alt` to those who cannot see it.

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
    width = float(root.attrib.pop("width").removesuffix("pt"))
    for name in ("height", "version"):
        root.attrib.pop(name, None)
    # How wide it may be, and, by page.css, how narrow before it scrolls.
    root.attrib.update({"class": "plot", "style": f"--width: {width:g}pt", "role": "img", "aria-label": alt})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


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

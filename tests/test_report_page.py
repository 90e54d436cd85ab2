"""The report's page as a text: whole, alone, and safe whatever the runs are called."""

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from page_helpers import HOSTILE, facts, page, picture, summary, svg, svgs, verdict

from lth_lightning.report import page as page_module
from lth_lightning.report.figure import Picture
from lth_lightning.report.layers_left import Layers, Left
from lth_lightning.report.lines import COLOURS, shade
from lth_lightning.report.page import Page, render
from lth_lightning.report.page_svg import DARK, LIGHT, cleaned, contrast, dark_colours, split
from lth_lightning.report.page_table import table

VOID = {"meta", "link", "input", "br", "img", "hr", "wbr"}


class Parsed(HTMLParser):
    """Elements with their attributes, what is open at the end, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.text += "" if tag == "wbr" else " "
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        self.text += " "
        assert self.open, f"</{tag}> without its start"
        assert self.open[-1] == tag, f"</{tag}> within <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def parsed(content: Page, fonttype: str = "none") -> Parsed:
    return Parsed(render(content, svgs(content, fonttype)))


@pytest.fixture(scope="module")
def usual() -> Parsed:
    return parsed(page())


def test_every_element_is_closed_where_it_should_be(usual):
    assert usual.open == []


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_nothing_is_loaded_from_anywhere_else(fonttype):
    content = page()
    html = render(content, svgs(content, fonttype))
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "//" not in re.sub(r"data:image/png;base64,[^\"]*|// [A-Z]", "", html)
    found = Parsed(html)
    links = [
        a[name] for _, a in found.elements for name in ("src", "href", "xlink:href", "srcset", "action") if name in a
    ]
    assert links
    assert all(link.startswith(("#", "data:")) or link == "summary.csv" for link in links)
    assert all(url.strip("'\"").startswith("#") for url in re.findall(r"url\(([^)]*)\)", html))


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_ids_are_unique_and_every_reference_has_its_target(fonttype):
    # The same image twice: matplotlib gives both the same ids.
    content = page(pictures=[picture("one"), picture("two"), picture("three", "other")])
    found = parsed(content, fonttype)
    ids = Counter(a["id"] for _, a in found.elements if "id" in a)
    assert max(ids.values()) == 1
    assert not [name for name in ids if " " in name]
    targets = [a[name] for _, a in found.elements for name in ("aria-labelledby", "for") if name in a]
    targets += [a["href"][1:] for _, a in found.elements if a.get("href", "").startswith("#")]
    for _, attributes in found.elements:
        targets += [url for value in attributes.values() for url in re.findall(r"url\(#([^)]*)\)", value)]
    assert any(target.startswith("figure-3-") for target in targets)
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_hostile_names_stay_text_wherever_they_stand(fonttype):
    evil = page(
        title=HOSTILE,
        runs=[facts(HOSTILE), facts("other " + HOSTILE)],
        notes=[HOSTILE],
        verdicts=[verdict(HOSTILE, runs=(HOSTILE,), text=HOSTILE, reason=HOSTILE, measured=HOSTILE, source=HOSTILE)],
        pictures=[picture("a", HOSTILE)],
        summary=summary((HOSTILE, "b")).assign(arm=HOSTILE),
        made=HOSTILE,
    )
    usual, found = parsed(page(pictures=[picture("a")]), fonttype), parsed(evil, fonttype)
    assert len(found.all("script")) == len(usual.all("script")) == 1
    assert len(found.all("style")) == len(usual.all("style")) == 1
    assert found.open == []
    squeezed = " ".join(HOSTILE.split())
    # title, h1, made, note, run (heading and more), claim, its text, reason, source, runs and number, caption, arms
    assert found.words.count(squeezed) > 20
    assert images(found)[0]["aria-label"] == f"Seen in {HOSTILE}"


def images(found: Parsed) -> list[dict[str, str]]:
    return [attributes for attributes in found.all("div") if attributes.get("role") == "img"]


def test_a_figure_is_split_into_its_panels_and_its_legend(usual):
    kinds = Counter(image["class"] for image in usual.all("svg"))
    assert kinds == {"plot": 4, "handle": 2}, "of two figures with two panels and one line in a legend each"
    drawing = split(picture().figure, svg(picture()), "p-")
    assert [entry.label for entry in drawing.entries] == ["line of early stop"]
    ((_, panels),) = drawing.blocks
    boxes = [[float(n) for n in re.search(r'viewBox="([^"]*)"', panel)[1].split()] for panel in panels]
    assert boxes[0][2] == boxes[1][2], "as wide, so that both have one scale"
    assert boxes[0][1::2] == boxes[1][1::2], "as high, so that axes beside one another are level"
    texts = [set(re.findall(r">([^<]+)</text>", panel)) for panel in panels]
    assert "early stop" in texts[1]
    assert "line of early stop" not in texts[0] | texts[1]


def test_a_label_that_a_legend_breaks_is_whole_on_the_page():
    from matplotlib.figure import Figure

    from lth_lightning.report.style import below, styled

    label = "activation=relu,hidden=300-100: " + "a control with quite a name " * 3 + "(n=3)"
    with styled():
        figure = Figure(figsize=(3.2, 2.5))
        (line,) = figure.subplots().plot([1, 2])
        below(figure, [line], [label], "activation, hidden")
    drawn = Picture("long", "t", "c", "a", "p", figure)
    assert "\n" in figure.legends[0].get_texts()[0].get_text()
    drawing = split(figure, svg(drawn), "p-")
    assert [entry.label for entry in drawing.entries] == [label]
    assert drawing.title == "activation, hidden"


def test_a_figure_of_several_runs_has_a_heading_for_each_and_what_is_not_shown_has_no_panel():
    from matplotlib.figure import Figure

    from lth_lightning.report.style import styled

    with styled():
        figure = Figure(figsize=(6.4, 5))
        for name, part in zip(("one", "two"), figure.subfigures(2, 1), strict=True):
            part.suptitle(name)
            left, right = part.subplots(1, 2)
            left.plot([1, 2])
            right.set_visible(name == "two")
    drawing = split(figure, svg(Picture("blocks", "t", "c", "a", "p", figure)), "p-")
    assert [(heading, len(panels)) for heading, panels in drawing.blocks] == [("one", 1), ("two", 2)]
    assert not drawing.entries


def test_what_is_said_first_is_one_sentence_a_run_then_come_the_figures_then_the_verdicts():
    words = parsed(page(runs=[facts("a"), facts("b")], verdicts=[verdict("L1"), verdict("L2", "cannot tell")])).words
    order = [
        words.index(part)
        for part in ("a: Winning tickets at level 1. b: Winning", "Caption of", "holds Early", "told, by reason")
    ]
    assert order == sorted(order)
    assert words.count("At level 1 random_reinit is slower.") == 2
    assert words.index("At level 1 random_reinit") > words.index("Caption of accuracy")


def test_what_cannot_be_told_is_one_folded_list_by_reason():
    unsure = [verdict(f"C{i}", "cannot tell", reason=f"too few trials: {i}, and it takes 3") for i in range(3)]
    unsure += [verdict(f"D{i}", "cannot tell", reason="the run's folder holds no weights") for i in range(2)]
    found = parsed(page(verdicts=[*unsure, verdict("L1")]))
    assert [a["id"] for a in found.all("h3") if "reason" in a.get("id", "")] == ["reason-1", "reason-2"]
    assert [a["class"] for a in found.all("details") if "class" in a] == ["unsure cannot-tell"]
    assert "5 claims that cannot be told, by reason too few trials 3 claims C0 Early" in found.words
    assert "too few trials: 1, and it takes 3" in found.words.replace("Too", "too")
    assert found.words.count("the run's folder holds no weights") == 1, "what is the reason of all is said once"
    assert found.words.index("\N{CHECK MARK} holds") < found.words.index("told, by reason")


def test_many_notes_are_folded_and_all_there():
    found = parsed(page(notes=[f"note {i}." for i in range(9)]))
    assert all(f"note {i}." in found.words for i in range(9))
    assert "7 more notes" in found.words
    assert "more notes" not in parsed(page()).words


def test_layers_have_a_table_and_what_is_nearly_gone_is_marked():
    layers = Layers(
        "lenet",
        [(0, "100%"), (9, "0.1%")],
        [("fc1", "9,000", [Left("100%", "9,000", False), Left("0.1%", "9", True)]), ("fc2", "100", [None, None])],
    )
    found = parsed(page(layers=[layers]))
    assert "Layer Weights Level 0 100% Level 9 0.1% fc1 9,000 100% 9,000 0.1% ! nearly or wholly gone 9" in found.words
    assert found.open == []
    assert "Layers" not in parsed(page()).words


def test_every_figure_says_what_is_to_be_seen_in_it(usual):
    assert [image["aria-label"] for image in images(usual)] == ["Seen in early stop", "Seen in accuracy"]
    assert all(image["aria-hidden"] == "true" for image in usual.all("svg"))
    assert len(usual.all("figure")) == len(usual.all("figcaption")) == 2
    assert "Caption of early stop" in usual.text
    assert "like LTH Fig. 1" in usual.words


def test_verdicts_say_word_symbol_number_and_reason_and_are_counted():
    words = parsed(page()).words
    for part in (
        "\N{CHECK MARK} 1 holds",
        "\N{BALLOT X} 1 does not hold",
        "? 1 cannot be told",
        "\N{CHECK MARK} holds Early stop comes sooner.",
        "Measured 38% sooner (31% to 44%; 3 trials) Paper 38% sooner Accepted 25% to 50% sooner",
        "1 claim that cannot be told, by reason Only one trial. 1 claim L2 Early stop comes sooner.",
    ):
        assert part in words


def test_parts_of_a_claim_stand_together_under_one_heading():
    found = parsed(page(verdicts=[verdict("L1"), verdict("L2"), verdict("L1", "does not hold")]))
    assert [a["id"] for a in found.all("h3") if a.get("id", "").startswith("claim")] == ["claim-1", "claim-2"]
    assert re.search(r"L1 LTH.* holds .* does not hold .*L2 LTH", found.words)


def test_sources_of_parts_that_differ_are_said_of_each_part():
    words = parsed(page(verdicts=[verdict(source="Fig. 4a"), verdict(source="Fig. 4b")])).words
    assert words.count("Fig. 4a") == words.count("Fig. 4b") == 1


def test_of_a_claim_of_which_nothing_was_measured_no_number_is_shown():
    found = parsed(page(verdicts=[verdict(outcome="cannot tell", measured="", spread="", trials=0)]))
    assert "Measured:" not in found.text
    assert not re.search(r"\(\d* ?trial", found.words.split("by reason")[-1].split("Table")[0])


def test_the_rule_and_what_the_parentheses_hold_are_those_of_the_verdicts(usual):
    for said in (
        "In parentheses are its 95% interval over the replicates (Student's t with n\u22121 degrees of freedom; arms",
        "paired by replicate), what replicates give each alone, from least to most, and their number n, the trials.",
        "A claim holds where the whole interval lies within what is accepted, and does not hold where all of it lies",
        "from fewer than three trials or shorter trainings than the paper's, it cannot be told.",
    ):
        assert said in usual.words
    assert "standard error" not in usual.words


def test_which_runs_a_verdict_is_of_is_said_where_there_are_several():
    assert "Measured in" not in parsed(page()).words
    assert "Measured in lenet" in parsed(page(runs=[facts(), facts("other")])).words


def test_a_page_without_verdicts_pictures_rows_configs_or_notes_says_so():
    bare = facts().__class__("mine", "no training finished", (), [("Folder", "x")], "", "")
    found = parsed(page(runs=[bare], notes=[], verdicts=[], pictures=[], summary=pd.DataFrame()))
    for sentence in (
        "are judged for runs of the shipped configs",
        "There is nothing to draw yet.",
        "No training has finished yet.",
        "Its folder does not say how it was started.",
    ):
        assert sentence in found.words
    assert not found.all("details")


def test_of_a_run_from_python_it_is_said_that_it_is_one():
    mine = facts().__class__("mine", "finished", (), [], "", "", is_from_python=True)
    words = parsed(page(runs=[mine], verdicts=[])).words
    assert "are judged for runs of the shipped configs" in words
    assert "It was started from Python, by a program of your own." in words
    assert "does not say" not in words
    many = parsed(page(runs=[mine, *(facts(f"run_{i}") for i in range(5))], verdicts=[])).words
    assert "# mine: started from Python #" in many
    assert "None of the claims of the paper" in many


def test_what_is_true_of_all_runs_is_said_once():
    words = parsed(page(runs=[facts("a"), facts("b")])).words
    assert words.count("LeNet300") == 1
    assert "In common Network LeNet300 Seed 0" in words
    assert "Folder lightning_logs/a" in words
    assert "Folder lightning_logs/b" in words
    assert "In common" not in parsed(page()).words


def test_many_runs_are_folded_and_all_there():
    found = parsed(page(runs=[facts(f"run_{i}") for i in range(9)]))
    assert len(found.all("summary")) == 20  # each, and its config; which tickets win; what cannot be told
    for i in range(9):
        assert f"run_{i} 3 of 4 trainings finished Folder lightning_logs/run_{i}" in found.words
        assert f"# run_{i} lth fit --config lightning_logs/run_{i}/config.yaml" in found.words


def test_headings_go_down_one_step_at_a_time(usual):
    levels = [int(tag[1]) for tag, _ in usual.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def cells(frame: pd.DataFrame) -> dict[str, list[tuple[str, str, str, str]]]:
    shown = table(frame)
    return {
        column.name: [(row[i].text, row[i].low, row[i].high, row[i].key) for row in shown.rows]
        for i, column in enumerate(shown.columns)
    }


def test_the_table_shows_percent_and_means_with_their_range_and_sorts_by_the_mean():
    frame = pd.DataFrame(
        [
            {
                "run": "lenet",
                "arm": "random_reinit",
                "level": 7,
                "density": 0.21072,
                "weights": 56094,
                "trials": 2,
                "diverged": 1,
                "early_stop_step": 6050.5,
                "early_stop_step_min": 5600.0,
                "early_stop_step_max": 6501.0,
                "final_test_acc": 0.98123,
                "final_test_acc_min": 0.9801,
                "final_test_acc_max": 0.98236,
                "final_test_loss": 0.06661,
                "final_test_loss_min": 0.06661,
                "final_test_loss_max": 0.06661,
                "seconds": 84.24,
                "seconds_min": 80.0,
                "seconds_max": 90.0,
            }
        ]
    )
    assert cells(frame) == {
        "arm": [("random reinit", "", "", "random reinit")],
        "level": [("7", "", "", "7")],
        "density": [("21.1%", "", "", "0.21072")],
        "weights": [("56,094", "", "", "56094")],
        "trials": [("2", "", "", "2")],
        "diverged": [("1", "", "", "1")],
        "early_stop_step": [("6,050", "5,600", "6,501", "6050.5")],
        "final_test_loss": [("0.0666", "", "", "0.06661")],
        "final_test_acc": [("98.12%", "98.01", "98.24%", "0.98123")],
        "seconds": [("84.2", "80.0", "90.0", "84.24")],
    }


def test_columns_that_are_empty_throughout_are_left_out_and_other_empty_cells_stay_empty():
    frame = summary()
    frame["final_val_acc"] = float("nan")
    frame["wins"] = None
    shown = cells(frame)
    assert "final_val_acc" not in shown
    assert "wins" not in shown
    assert shown["early_stop_step"].count(("", "", "", "")) == 1
    assert shown["diverged"].count(("3", "", "", "3")) == 1


def test_the_run_is_a_column_where_there_are_several():
    assert "run" not in cells(summary())
    assert [cell[0] for cell in cells(summary(("a", "b"), levels=1))["run"]] == ["a", "a", "b", "b"]


def test_winning_tickets_have_a_star_and_a_word(usual):
    assert usual.text.count("\N{BLACK STAR}") == 1
    assert usual.words.count("winning ticket") == 2  # the cell, and the sentence on the star
    assert "A star" in usual.text
    assert "A star" not in parsed(page(summary=summary().drop(columns="wins"))).text


def test_rows_have_a_cell_in_each_column(usual):
    shown = table(summary())
    heads = [a for a in usual.all("th") if "data-column" in a]
    assert sorted(int(head["data-column"]) for head in heads) == list(range(len(shown.columns)))
    keys = [a for tag, a in usual.elements if tag in ("td", "th") and "data-key" in a]
    assert len(keys) == len(shown.columns) * len(shown.rows)


def test_what_may_scroll_can_be_reached_with_the_keyboard_and_has_a_name(usual):
    regions = [attributes for tag, attributes in usual.elements if attributes.get("class") == "scroll"]
    assert len(regions) == 3  # the table, a config, a command
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))


def test_text_is_readable_in_light_and_dark():
    style = (Path(page_module.__file__).parent / "page.css").read_text()
    light, dark = (colours(block) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2])
    assert light.keys() == dark.keys()
    assert (light["ink"], light["paper"]) == LIGHT
    assert (dark["ink"], dark["paper"]) == DARK
    for mode in (light, dark):
        for name in ("ink", "muted", "link", "holds", "fails", "unsure"):
            for ground in ("paper", "shade"):
                assert contrast(mode[name], mode[ground]) >= 4.5, (name, ground)


def test_contrast_is_as_wcag_defines_it():
    # The extremes, and the lightest grey that passes on white (WebAIM's).
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
    assert contrast("#0000ff", "#ffffff") == pytest.approx(8.59, abs=0.005)


def test_series_keep_their_colours_but_where_the_dark_page_would_swallow_them():
    for colour in [*COLOURS, *(shade(i, 20) for i in range(20))]:
        image = f'<svg xmlns="http://www.w3.org/2000/svg" width="9pt"><path style="stroke: {colour}"/></svg>'
        style = ElementTree.tostring(cleaned(image, ""), encoding="unicode").split("<path", 1)[1]
        rule = dark_colours([image])
        if contrast(colour, DARK[1]) >= 3:
            assert f"stroke: {colour}" in style
            assert rule == ""
        else:
            name = f"--c{colour[1:]}"
            assert f"var({name}, {colour})" in style
            lighter = dict(re.findall(r"(--c\w+): (#\w{6})", rule))[name]
            assert contrast(lighter, DARK[1]) >= 3


def on_the_page(drawn: Picture, fonttype: str = "none") -> str:
    """All panels of a figure."""
    return "".join(panel for _, panels in split(drawn.figure, svg(drawn, fonttype), "p-").blocks for panel in panels)


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_text_and_axes_of_figures_take_the_colour_of_the_page(fonttype):
    drawn = picture(words="words to find")
    before, after = svg(drawn, fonttype), on_the_page(drawn, fonttype)
    assert "#262626" in before
    assert "#262626" not in after
    assert "currentColor" in after
    assert "#0072b2" in after
    assert ("words to find" in after) == (fonttype == "none")


def test_an_image_keeps_its_coordinates_to_a_hundredth_of_a_point():
    before = svg(picture())
    after = ElementTree.tostring(cleaned(before, "p-"), encoding="unicode")
    exact, short = (
        [float(n) for d in re.findall(r' d="([^"]*)"', text) for n in re.findall(r"-?\d+\.?\d*", d)]
        for text in (before, after)
    )
    assert len(short) > 100
    assert short == pytest.approx(exact, abs=0.0101)
    assert len(after) < len(before)


def test_the_page_stays_below_5_mb_with_ten_figures_and_600_rows():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5))
    for axes in figure.subplots(2, 3).flat:
        for i in range(9):
            axes.plot([(j * 7919 * (i + 1) % 1009) / 1009 for j in range(500)])
    drawn = Picture("curves", "t", "c", "a", "p", figure)
    pictures = [Picture(f"{drawn.name}_{i}", "t", "c", "a", "p", figure) for i in range(10)]
    image = svg(drawn)
    names = tuple(f"sweep/a_value={i}/version_0" for i in range(30))
    content = page(
        runs=[facts(name) for name in names],
        pictures=pictures,
        summary=summary(names, levels=10),
        notes=["x" * 200] * 50,
    )
    html = render(content, {picture.name: image for picture in pictures})
    assert html.count("<tr>") == 602
    assert len(html.encode()) < 5_000_000

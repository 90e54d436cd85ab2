"""The report's page in a real browser, from a file, without a network."""

import io
import re
import shutil
from collections.abc import Iterator

import pytest
from page_helpers import facts, page, picture, summary, svgs, verdict
from PIL import Image

from lth_lightning.report.page import Page, render
from lth_lightning.report.page_svg import DARK, LIGHT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, as Debian's package of that name has it")

LONG = "a_run_whose_name_has_no_place_to_break_it_" * 5


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not start in many containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The usual page, and one with everything long and three runs."""
    folder = tmp_path_factory.mktemp("pages")
    several = ("first", LONG, "third")
    pages: dict[str, Page] = {
        "usual": page(),
        "long": page(
            title=LONG,
            runs=[facts(name) for name in several],
            notes=[LONG],
            verdicts=[verdict(LONG, text=LONG, measured=LONG, accepted=LONG, runs=several, source=LONG)],
            pictures=[picture("a", "words")],
            summary=summary(several, levels=12),
        ),
    }
    for name, content in pages.items():
        (folder / f"{name}.html").write_text(render(content, svgs(content)))
    return folder


@pytest.fixture
def visit(browser, files):
    """Opens a page and, at the end, checks that the browser complained of nothing and asked for nothing else."""
    problems, requests, contexts = [], [], []

    def open_page(name: str = "usual", width: int = 1280, height: int = 800, **options: object):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((files / f"{name}.html").as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
    assert [url for url in requests if not url.endswith(".html")] == []


def column(tab, title: str) -> list[str]:
    """The keys of the column's cells, from top to bottom."""
    number = tab.locator("th[data-column]").filter(has_text=title).first.get_attribute("data-column")
    return tab.eval_on_selector_all(
        "tbody tr", "(rows, number) => rows.map((row) => row.cells[number].dataset.key)", int(number)
    )


def head(tab, title: str):
    return tab.locator("th[data-column]").filter(has_text=title)


def test_a_click_on_a_column_sorts_by_number_up_and_down_with_empty_cells_last(visit):
    tab = visit()
    before = column(tab, "Step")
    assert "" in before[:-1]
    # As texts, 10000 would come before 900.
    up = ["900", "3000", "3050", "5000", "5050", "10000", "10050", ""]
    down = [*reversed(up[:-1]), ""]
    button = tab.get_by_role("button", name="Step at early stop")
    for expected, order in ((up, "ascending"), (down, "descending"), (up, "ascending")):
        button.click()
        assert column(tab, "Step") == expected
        assert head(tab, "Step at early stop").get_attribute("aria-sort") == order
    assert tab.locator("th[aria-sort=none]").count() == tab.locator("th[data-column]").count() - 1


def test_columns_of_words_sort_too_and_equal_rows_keep_their_order(visit):
    tab = visit()
    tab.get_by_role("button", name="Level", exact=True).click()
    tab.get_by_role("button", name="Arm", exact=True).click()
    assert column(tab, "Arm") == ["random reinit"] * 4 + ["ticket"] * 4
    assert column(tab, "Level") == ["0", "1", "2", "3"] * 2
    tab.get_by_role("button", name="Wins", exact=True).click()
    assert column(tab, "Wins") == ["0", "0", "0", "1", "", "", "", ""]


def tab_to(tab, condition: str, most: int = 60) -> None:
    """Press the tabulator until the focused element meets the condition."""
    for _ in range(most):
        tab.keyboard.press("Tab")
        if tab.evaluate(f"(() => {{ const at = document.activeElement; return Boolean({condition}); }})()"):
            return
    raise AssertionError(f"{condition}: not reached")


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_table_sorts_with_the_keyboard(visit, key):
    tab = visit()
    tab_to(tab, "at.matches('th button') && at.textContent.startsWith('Step')")
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.keyboard.press(key)
    assert column(tab, "Step")[0] == "900"
    tab.keyboard.press(key)
    assert column(tab, "Step")[0] == "10050"
    assert head(tab, "Step at early stop").get_attribute("aria-sort") == "descending"


def test_the_filter_keeps_rows_with_all_words_and_counts_them(visit):
    tab = visit("long")
    tab.get_by_label("Show rows with these words").fill("third TICKET")
    assert tab.locator("tbody tr:visible").count() == 12
    assert tab.locator("output").text_content() == "12 of 72 rows"
    tab.get_by_role("button", name="Level", exact=True).click()
    assert tab.locator("tbody tr:visible").count() == 12
    tab.get_by_label("Show rows with these words").fill("")
    assert tab.locator("tbody tr:visible").count() == 72


@pytest.mark.parametrize("name", ["usual", "long"])
@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1920])
def test_the_page_as_a_whole_never_scrolls_sideways(visit, name, width):
    tab = visit(name, width)
    for summary_line in tab.locator("summary").all():
        summary_line.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # Nor is anything cut off: all that sticks out does so within a region that scrolls.
    lost = tab.evaluate(
        """[...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, .hidden, .skip, script, style")
            && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert lost == []


@pytest.mark.parametrize(("width", "beside"), [(360, False), (1600, True)])
def test_panels_of_a_figure_are_below_one_another_on_a_phone_and_as_wide_as_the_page_elsewhere(visit, width, beside):
    tab = visit(width=width)
    first, second = (tab.locator("figure .plot").nth(number).bounding_box() for number in (0, 1))
    if beside:
        assert first["y"] == pytest.approx(second["y"], abs=1)
        page_wide = tab.locator("main").bounding_box()["width"]
        assert second["x"] + second["width"] - first["x"] > 0.8 * page_wide
    else:
        assert second["y"] >= first["y"] + first["height"]
        assert first["width"] > 0.9 * (width - 32)
    assert first["width"] == pytest.approx(second["width"], abs=1)
    entry = tab.locator(".legend li").first
    assert entry.inner_text() == "line of early stop"
    assert entry.bounding_box()["x"] + entry.bounding_box()["width"] <= width


def test_on_a_phone_figures_are_legible_and_need_no_scrolling(visit):
    tab = visit(width=360)
    assert not tab.locator("figure .scroll").count()
    sizes = tab.eval_on_selector_all(
        "figure text", "(texts) => texts.map((t) => t.getBoundingClientRect()).map((b) => Math.min(b.width, b.height))"
    )
    assert min(size for size in sizes if size) > 5


def test_what_fits_is_no_stop_of_the_tabulator(visit):
    tab = visit(width=1280)
    region = tab.locator("section:has(> #repeat) .scroll").first
    tab.wait_for_function("!document.querySelector('section:has(> #repeat) .scroll').hasAttribute('tabindex')")
    assert region.get_attribute("role") == "group"


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def computed(tab, selector: str, name: str) -> tuple[int, ...]:
    value = tab.eval_on_selector(selector, f"(e) => getComputedStyle(e).{name}")
    return tuple(int(part) for part in re.findall(r"\d+", value)[:3])


def pixels_of(tab) -> list[tuple[int, tuple[int, ...]]]:
    """How often each colour is in the first figure as it is on the screen."""
    image = Image.open(io.BytesIO(tab.locator("figure .panels").first.screenshot())).convert("RGB")
    return image.getcolors(1 << 24)


def has(pixels: list[tuple[int, tuple[int, ...]]], wanted: tuple[int, ...]) -> bool:
    """Whether some pixel is about that colour: letters are smoothed at their edges."""
    return any(max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 40 for _, colour in pixels)


@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_page_and_figures_follow_the_readers_colour_scheme(visit, scheme, colours):
    tab = visit(color_scheme=scheme)
    ink, paper = map(rgb, colours)
    assert computed(tab, "body", "backgroundColor") == paper
    assert computed(tab, "body", "color") == ink
    assert computed(tab, "figure text", "fill") == ink
    pixels = pixels_of(tab)
    assert max(pixels)[1] == paper
    assert has(pixels, ink)
    assert has(pixels, rgb("#0072b2"))


def test_a_line_that_a_dark_page_would_swallow_is_lighter_there(visit):
    # The second picture's line is #440154.
    of_line = "[style*='440154']"
    assert computed(visit(color_scheme="light"), of_line, "stroke") == rgb("#440154")
    assert sum(computed(visit(color_scheme="dark"), of_line, "stroke")) > 2 * sum(rgb("#440154"))


def test_on_paper_it_is_light_nothing_scrolls_and_the_table_has_room(visit):
    tab = visit(color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert computed(tab, "body", "backgroundColor") == rgb(LIGHT[1])
    assert computed(tab, "figure text", "fill") == rgb(LIGHT[0])
    assert set(tab.eval_on_selector_all(".scroll", "(all) => all.map((e) => getComputedStyle(e).overflowX)")) == {
        "visible"
    }
    assert not tab.locator("nav ul").is_visible()
    assert tab.pdf(format="A4").startswith(b"%PDF")


def test_every_image_is_drawn(visit):
    tab = visit()
    tab.wait_for_load_state("load")
    assert tab.locator("figure .plot:visible").count() == 4
    assert tab.eval_on_selector_all("img", "(all) => all.filter((e) => !e.naturalWidth).length") == 0
    # The raster within an SVG: squares of viridis' least and greatest value.
    pixels = pixels_of(tab)
    assert has(pixels, rgb("#440154"))
    assert has(pixels, rgb("#fde725"))


def test_details_open_with_the_keyboard(visit):
    tab = visit()
    assert not tab.get_by_text("levels: 3").is_visible()
    tab_to(tab, "at.matches('summary') && at.textContent.startsWith('Config')")
    tab.keyboard.press("Enter")
    assert tab.get_by_text("levels: 3").is_visible()


def test_the_first_stop_of_the_tabulator_skips_to_the_content(visit):
    tab = visit()
    tab.keyboard.press("Tab")
    skip = tab.locator("a.skip")
    tab.wait_for_function("document.querySelector('a.skip').getBoundingClientRect().top >= 0")
    assert skip.evaluate("(e) => e === document.activeElement")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.closest('main').id") == "content"


def test_links_of_the_page_lead_to_its_parts(visit):
    tab = visit(reduced_motion="reduce")
    for link in tab.locator("nav a").all():
        link.click()
        assert tab.locator(tab.evaluate("location.hash")).is_visible()


@pytest.mark.parametrize(("name", "width"), [("long", 900), ("usual", 360)])
def test_heads_and_names_of_rows_stay_in_sight_while_the_table_scrolls(visit, name, width):
    tab = visit(name, width=width, height=400)
    region = tab.locator(".scroll:has(table)")
    region.evaluate("(e) => e.scrollTo(400, 100)")
    assert region.evaluate("(e) => e.scrollLeft") > 100
    box = region.bounding_box()
    inside = [tab.locator("thead th.arm"), tab.locator("thead th.level")]
    for number, cell in enumerate(inside):
        at = cell.bounding_box()
        assert at["y"] == pytest.approx(box["y"], abs=3), number
        assert box["x"] <= at["x"] < box["x"] + 400
    arm = tab.locator(".wide tbody tr").nth(5).locator("th.arm").bounding_box()
    assert box["x"] <= arm["x"] < box["x"] + 300


def test_without_scripts_everything_is_there_but_unsorted(visit):
    tab = visit(java_script_enabled=False)
    assert tab.locator("tbody tr:visible").count() == 8
    assert tab.locator("figure .plot:visible").count() == 4
    assert tab.locator("button").count() == 0
    assert not tab.locator("input").is_visible()


def test_the_outline_is_what_a_screen_reader_hears(visit):
    tab = visit()
    assert tab.get_by_role("main").count() == 1
    assert tab.get_by_role("navigation", name="On this page").count() == 1
    assert tab.get_by_role("heading", level=1, name="Lottery tickets: lenet").count() == 1
    for name in ("Result", "Figures", "Verdicts", "Table", "What was run", "How to repeat it"):
        assert tab.get_by_role("heading", level=2, name=name, exact=True).count() == 1
    assert tab.get_by_role("img", name="Seen in early stop").count() == 1
    assert tab.get_by_role("region", name="Summary table").count() == 1
    assert tab.get_by_role("columnheader", name="Test accuracy at early stop").count() == 1
    assert tab.get_by_role("rowheader", name="ticket").count() == 4

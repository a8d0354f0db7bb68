"""What a browser makes of ``ser report``'s page: Debian's Chromium, driven by Selenium."""

import csv
import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from sklearn.metrics import confusion_matrix

from ser.cli import main

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"
)
OPTIONS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage"""
WIDE, NARROW = 1280, 400
# Names that a page can trip over.
LABELS = ["<b>anger", "joy & happiness", "a very long name of an emotion", "neutral", "sad", "fear", "disgust", "calm"]
LABELS += ["surprise", "boredom"]
GENDERS = {"<img src=x onerror=document.title='hit'>": None, "ben": "male", "cat": "female"}
LONG_NAME = "a_very_long_name_of_an_experiment_with_everything_in_it"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield chromium
    chromium.quit()


@pytest.fixture(scope="module")
def runs(write_module_run):
    """Two folds of a system of a paper and one of another."""
    options = {"labels": LABELS, "genders": GENDERS, "skill": 1.0}
    runs = [write_module_run("cornn-made", 0, **options), write_module_run("cornn-made", 1, **options)]
    return [*runs, write_module_run(LONG_NAME, 0, system="mine", **options)]


@pytest.fixture(scope="module")
def loaded(driver, runs, write_module_run):
    """The page of the runs in the browser, and what the browser logged when it loaded it."""
    corpus, output = write_module_run.root.parent / "corpus", write_module_run.root / "page.html"
    for row in predictions(*runs):
        path = corpus / row["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(4000), 8000)
    assert main(["report", *map(str, runs), "--audio", "--output", str(output)]) == 0
    for kind in ("browser", "performance"):
        driver.get_log(kind)  # what came before
    driver.get(output.as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.find_elements(By.CSS_SELECTOR, "body[data-drawn=yes]"))
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return SimpleNamespace(page=driver, errors=driver.get_log("browser"), events=events)


@pytest.fixture
def page(loaded):
    """The page of the runs, in a wide window."""
    resize(loaded.page, WIDE)
    return loaded.page


def resize(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def texts(page, selector):
    return page.execute_script("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)


def predictions(*runs):
    for run in runs:
        with (run / "predictions.csv").open() as file:
            yield from csv.DictReader(file)


def counts(*runs):
    """Return the confusion matrix of predictions.csv."""
    rows = list(predictions(*runs))
    return confusion_matrix([row["target"] for row in rows], [row["predicted"] for row in rows], labels=LABELS)


def drawn_counts(page):
    """Return the counts that the plot shows, cell by cell: the second line of each text."""
    cells = texts(page, "#e1-matrix .scatterlayer text tspan:last-child")
    return np.array(cells, dtype=int).reshape(len(LABELS), -1)


def tabled_counts(page):
    cells = [cell.split(" · ")[1] for cell in texts(page, "#e1-matrix-table td")]
    return np.array(cells, dtype=int).reshape(len(LABELS), -1)


def test_the_page_loads_without_errors_and_without_a_network(loaded):
    assert loaded.errors == []
    asked = [event["params"] for event in loaded.events if event["method"] == "Network.requestWillBeSent"]
    here = loaded.page.current_url
    urls = {request["request"]["url"] for request in asked if request["documentURL"] == here}
    assert here in urls
    assert not {url for url in urls - {here} if not url.startswith(("data:", "blob:"))}


def test_the_matrix_shows_predictions_csv_and_the_fold_can_be_chosen(page, runs):
    first, second, _ = runs
    choice = page.find_element(By.ID, "e1-matrix-choice")
    says = page.find_element(By.ID, "e1-matrix-says")
    shown = [option.text for option in Select(choice).options]
    tested = list(GENDERS)
    assert shown == ["All runs", f"fold0-seed1 (tests {tested[0]})", f"fold1-seed1 (tests {tested[1]})"]
    wait = WebDriverWait(page, 10)
    for name, of in zip(shown, ((first, second), (first,), (second,)), strict=True):
        if name != shown[0]:
            choice.send_keys(Keys.ARROW_DOWN)  # no mouse is needed
        wait.until(lambda _, name=name: says.text.startswith(name))
        np.testing.assert_array_equal(tabled_counts(page), counts(*of))
        wait.until(lambda _, of=of: (drawn_counts(page) == counts(*of)).all())


def test_a_run_can_be_highlighted_among_the_curves(page):
    Select(page.find_element(By.ID, "e1-curves-choice")).select_by_visible_text("fold1-seed1")
    traces = page.execute_script("return document.getElementById('e1-curves').data.map(t => [t.meta, t.opacity])")
    assert {run for run, opacity in traces if opacity == 1} == {"fold1-seed1"}
    assert {run for run, opacity in traces if opacity < 0.5} == {"fold0-seed1"}


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_wider_than_the_window(page, width):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    resize(page, width)
    svgs = "document.querySelectorAll('.plot:not(.scroll .plot) .main-svg')"
    widths = f"return [...{svgs}].map(s => s.getBoundingClientRect().right)"
    WebDriverWait(page, 20).until(lambda _: max(page.execute_script(widths)) <= width)  # plots follow the window
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_phone_shows_the_scores_and_scrolls_to_the_rest(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    resize(page, NARROW)
    score = "[...document.querySelectorAll('h2 ~ .scroll thead th, h3 + .scroll thead th')]"
    edges = f"return {score}.filter(h => h.textContent === 'macro-F1').map(h => h.getBoundingClientRect().right)"
    assert max(page.execute_script(edges)) <= NARROW
    reached = """return [...document.querySelectorAll('.scroll:has(> table)')].every(s => { s.scrollLeft = 1e6;
        const end = s.querySelector('tr > :last-child').getBoundingClientRect().right; s.scrollLeft = 0;
        return end <= s.getBoundingClientRect().right + 1; })"""
    assert page.execute_script(reached)
    covered = "return [...document.querySelectorAll('caption span')].every(s => s.getBoundingClientRect().right <= 400)"
    assert page.execute_script(covered)


def test_a_phone_shows_the_numbers_of_a_large_matrix_beside_each_other(page):
    resize(page, NARROW)
    boxes = "return [...document.querySelectorAll('#e1-matrix .scatterlayer text')].map(t => t.getBoundingClientRect())"
    row = page.execute_script(boxes)[: len(LABELS)]
    assert all(left["right"] <= right["left"] for left, right in itertools.pairwise(row))
    plot, scroll = (f"document.querySelector('{selector}')" for selector in ("#e1-matrix", ".scroll:has(#e1-matrix)"))
    assert page.execute_script(f"return {scroll}.scrollWidth == {plot}.scrollWidth")  # all of it can be reached


def test_names_are_shown_as_they_are(page):
    assert page.title == "cornn, mine on Made"
    assert not page.find_elements(By.TAG_NAME, "img")
    assert sorted(texts(page, "#e1-matrix .ytick text")) == sorted(LABELS)
    assert texts(page, "#e1-matrix-table th") == ["truth", *LABELS, *LABELS]
    shown = set(texts(page, "#e1-speakers .ytick text, #e1-speakers .annotation-text"))
    assert shown == {*list(GENDERS)[:2], "chance 10%"}


def test_the_page_can_be_read_without_seeing_it(page):
    assert page.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    headings = "return [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(h => Number(h.tagName[1]))"
    levels = page.execute_script(headings)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(following <= level + 1 for level, following in itertools.pairwise(levels))
    plots = page.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) == 1 + 2 * 6 + 2  # the comparison; of each experiment; beside the paper
    for plot in plots:
        assert plot.get_attribute("role") == "img"
        assert len(plot.accessible_name) > 20
        assert plot.find_element(By.XPATH, "ancestor::figure").find_elements(By.CSS_SELECTOR, "details table td")
    for choice in page.find_elements(By.TAG_NAME, "select"):
        assert choice.accessible_name in ("Utterances of", "Highlight")


def test_mistakes_can_be_listened_to(page):
    players = page.find_elements(By.TAG_NAME, "audio")
    assert len(players) == 2 * 12
    for player in players:
        wait = WebDriverWait(page, 10)
        assert wait.until(lambda _, player=player: player.get_property("duration")) == 0.5
        assert player.get_property("error") is None

"""The page and the table of a sweep: what they say of its trials, and how the page looks in a narrow window."""

import html
import re
import shutil
from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from ser.sweep.results import TrialTable, sweep_page

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SPACE = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "model.net.a_very_long_name_of_a_setting": CategoricalDistribution(["[2, 4, 4, 4]", "<b>[2]"]),
    "trainer.gradient_clip_val": FloatDistribution(0, 10),
    "model.net.initial_temperature": FloatDistribution(0, 10),
}
WHY = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x512 and 256x4) in <b>a layer</b>"


@pytest.fixture
def study():
    """Five trials: three that were completed, one pruned after two epochs, and one that failed."""
    study = optuna.create_study(study_name="sweep-small", direction="maximize")
    states = [TrialState.COMPLETE] * 3 + [TrialState.PRUNED, TrialState.FAIL]
    for number, (state, scores) in enumerate(
        zip(states, ([0.3, 0.5], [0.25, 0.625], [0.4], [0.2, 0.3], []), strict=True)
    ):
        attributes = {"runs": {"folders": [f"runs/sweep-small/trial{number}"]}}
        settings = [0.001234567890123 * (number + 1), "<b>[2]", 1.5, 2.5]
        study.add_trial(
            create_trial(
                state=state,
                value=max(scores) if state == TrialState.COMPLETE else None,
                params=dict(zip(SPACE, settings, strict=True)),
                distributions=SPACE,
                intermediate_values=dict(enumerate(scores, start=1)),
                user_attrs=attributes | ({"error": WHY} if state == TrialState.FAIL else {}),
            )
        )
    return study


@pytest.fixture
def page(study):
    return sweep_page(study, ["Trial 1: validation UAR 62.5%."]).decode()


def rows_of(page):
    table = page[page.index("<h2>Trials</h2>") :]
    rows = re.findall(r"<tr>(.*?)</tr>", table)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_every_trial_is_listed_with_its_score_in_percent(page):
    header, *rows = rows_of(page)
    settings = ["lr", "a_very_long_name_of_a_setting", "gradient_clip_val", "initial_temperature"]
    assert header == ["trial", "state", "UAR %", *settings, "epochs", "run folder"]
    assert [row[:3] for row in rows] == [
        ["1", "complete", "62.5"],
        ["0", "complete", "50.0"],
        ["2", "complete", "40.0"],
        ["3", "pruned", "30.0"],
        ["4", f"failed: {WHY}", ""],
    ]
    assert rows[0][3:] == ["0.00247", "<b>[2]", "1.5", "2.5", "2", "runs/sweep-small/trial1"]
    assert [row[-2] for row in rows] == ["2", "2", "1", "2", "0"]


def test_each_thing_is_said_once_and_epochs_count_from_0(page):
    assert page.count("by 3 completed trials") == 1
    start = page.index("<h2>Epochs</h2>")
    lines = re.findall(r'"x":\[([\d,]*)\],"y":\[', page[start : page.index("<h2>Importance</h2>")])
    assert lines == ["0,1", "0,1", "0", "0,1"]
    assert page.count('"tickformat":".1%"') == 2
    assert "<b>[2]" not in page[: page.index("<script")]


def test_the_table_fits_eighty_columns(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with TrialTable(study, 5):
        pass
    shown = capsys.readouterr().out
    assert "…" not in shown
    for name in ("lr 0.00247", "a_very_long_name_of_a_setting", "<b>[2]", "gradient_clip_val 1.5", "62.5%"):
        assert name in " ".join(shown.split())
    monkeypatch.setenv("COLUMNS", "140")
    with TrialTable(study, 5):
        pass
    header = capsys.readouterr().out.splitlines()[0].split()
    assert header == [*("trial", "UAR", "epochs", "lr"), *(name.rpartition(".")[2] for name in list(SPACE)[1:])]


@pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"
)
def test_nothing_is_cut_in_a_narrow_window(page, tmp_path):
    (tmp_path / "page.html").write_text(page)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(option)
    chromium = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        chromium.get((tmp_path / "page.html").as_uri())
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= 400
        wide = chromium.find_element(By.CLASS_NAME, "wide")
        assert chromium.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", wide)
        for cell in chromium.find_elements(By.CSS_SELECTOR, "table:first-of-type td"):
            place = SimpleNamespace(**cell.rect)
            assert place.x + place.width <= 400 or cell.find_elements(By.XPATH, "ancestor::div[@class='wide']")
    finally:
        chromium.quit()

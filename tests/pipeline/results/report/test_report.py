"""The report in a real browser: offline, right, readable, usable by keyboard; and as a file: small, safe."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from classifier.grade import Grade
from classifier.measure.quantities import Measured, Quantity
from data_prep.base.manifest import read_told
from data_prep.levels import PointSource, SpineLevels
from data_prep.problems import Reason, Rejection
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import CONDITIONS, LEVELS, TARGETS, Condition, ConditionGroup, Level, Side, Target
from pipeline.grade import Pipeline
from pipeline.models import OWN_WEIGHTS, SYNTHETIC_ONLY, learned_words
from pipeline.prediction import Provenance, StudyPrediction
from pipeline.results.dicom.identity import note
from pipeline.results.pictures.montage import crop_at, read_at
from pipeline.results.pictures.readings import reading_of_prediction
from pipeline.results.report import images as report_images
from pipeline.results.report.images import shown_series
from pipeline.results.report.pages import least_certain_words, worst_words, write_index
from pipeline.results.report.study_report import _cell, render_report, write_report
from pipeline.results.words import FLAG_WORDS, share_words
from tests.pipeline.stand_in import CANARY, stand_in_pipeline, write_studies, write_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CONTRAST = (Path(__file__).parents[2] / "contrast.js").read_text()
MAX_BYTES = 4_000_000
L4_CANAL = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)


@pytest.fixture(scope="session")
def graded(bundled_pipeline: Pipeline, phantom_data: Path) -> tuple[StudyPrediction, Study]:
    """A synthetic study with the bundled models."""
    prediction, study = bundled_pipeline.predict_entry(find_studies(phantom_data)[0])
    assert study is not None
    return prediction, study


@pytest.fixture(scope="session")
def report(graded: tuple[StudyPrediction, Study], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(graded[1], graded[0], path)
    return path


class Opened:
    """A page and everything it did: messages on the console, and requests that left the page."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._listeners: dict[str, Callable[[Any], None]] = {
            "console": lambda message: self.messages.append(message.text),
            "pageerror": lambda error: self.messages.append(str(error)),
            "request": lambda request: self.requests.append(request.url),
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]
        page.goto(path.as_uri())

    def close(self) -> None:
        """Nothing was complained of, and nothing was asked for but the file and the data in it."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        assert self.messages == []
        assert [url for url in self.requests if not url.startswith("data:")] == self.requests[:1]


@pytest.fixture
def opened(page: Page, report: Path) -> Any:
    page.set_viewport_size({"width": 1400, "height": 900})
    opened = Opened(page, report)
    yield opened
    opened.close()


def decoded(uri: str) -> np.ndarray:
    coded = np.frombuffer(base64.b64decode(uri.split(",", 1)[1]), np.uint8)
    return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)


def test_a_probability_is_rounded_once(graded: tuple[StudyPrediction, Study], tmp_path: Path) -> None:
    """As in the picture: 96.53 % is 97 %, and neither 96.5 nor, from that, 96 %."""
    prediction, _ = graded
    grade = Grade(np.array([0.9653, 0.0325, 0.0022]), prediction.grades[L4_CANAL].source)
    other = replace(prediction, grades={**prediction.grades, L4_CANAL: grade})
    write_report(None, other, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"L4/L5 canal: Normal/Mild {share_words(0.9653)}" in page and "N 97 · M 3 · S 0" in page


def test_a_click_shows_the_right_crop_the_right_slice_and_the_right_figures(
    opened: Opened, graded: tuple[StudyPrediction, Study]
) -> None:
    prediction, study = graded
    assert prediction.levels is not None
    for target in TARGETS[::4]:
        point = prediction.levels.point(target.condition, target.level)
        assert point is not None
        opened.page.click(f"#cell-{target.column}")
        crop = opened.page.locator(".detail:visible img")
        read = read_at(prediction.levels, target.condition, target.level)
        assert read is not None
        expected = crop_at(study, read, 224)
        assert expected is not None
        shown = decoded(crop.get_attribute("src") or "").astype(float)
        assert np.abs(shown - expected).mean() < 6
        others = [crop_at(study, other, 224) for other in prediction.levels.points if other is not point]
        assert all(np.abs(shown - o).mean() > 6 for o in others if o is not None)
        figure = opened.page.locator("figure.slice:visible")
        assert figure.get_attribute("data-instance") == str(point.sight.instance_number)
        assert figure.locator("g.point.current").get_attribute("data-target") == target.column
        words = opened.page.locator(".detail:visible").inner_text()
        for share in prediction.grades[target].probabilities:
            assert f"{100 * share:.1f} %" in words
        source = "a detector saw" if prediction.grades[target].source == "seen" else "geometry placed"
        assert source in words


def test_the_images_stand_beside_the_grades_and_stay_in_view(opened: Opened) -> None:
    target = next(target for target in TARGETS if target.level is LEVELS[3])
    cell = opened.page.locator(f"#cell-{target.column}")
    cell.click()
    shown = opened.page.locator("figure.slice:visible")
    grades, image = cell.bounding_box(), shown.bounding_box()
    assert grades is not None and image is not None
    assert image["x"] >= grades["x"] + grades["width"]
    assert image["y"] >= 0 and image["y"] + image["height"] <= 900


def test_the_ring_on_a_slice_lies_where_the_point_is_and_is_as_wide_as_its_uncertainty(
    opened: Opened, graded: tuple[StudyPrediction, Study]
) -> None:
    prediction, study = graded
    assert prediction.levels is not None
    point = prediction.levels.point(L4_CANAL.condition, L4_CANAL.level)
    assert point is not None and point.sight is not None
    opened.page.click(f"#cell-{L4_CANAL.column}")
    figure = opened.page.locator("figure.slice:visible")
    box = [float(value) for value in (figure.locator("svg").get_attribute("viewBox") or "").split()]
    circle = figure.locator(f'g.point[data-target="{L4_CANAL.column}"] circle').first
    _, item = study.slice_at(point.sight)
    rows, columns = item.plane.shape
    # The phantom's slices are stored upright: the picture is the slice, scaled.
    assert float(circle.get_attribute("cx")) / box[2] == pytest.approx(
        (point.sight.xy_px[0] + 0.5) / columns, abs=0.01
    )
    assert float(circle.get_attribute("cy")) / box[3] == pytest.approx(
        (point.sight.xy_px[1] + 0.5) / rows, abs=0.01
    )
    height_mm = rows * item.plane.spacing_mm[1]
    assert float(circle.get_attribute("r")) / box[3] * height_mm == pytest.approx(
        point.uncertainty_mm, abs=0.3
    )


def test_everything_works_by_keyboard(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the grades"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = page.evaluate("document.activeElement.id")
    assert first == "cell-right_neural_foraminal_narrowing_l1_l2"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "cell-spinal_canal_stenosis_l2_l3"
    page.keyboard.press("Enter")
    assert page.locator(".detail:visible h3").inner_text().startswith("L2/L3 canal")
    assert page.locator("button.cell[aria-pressed=true]").count() == 1
    page.locator(".scroller:visible input").focus()
    before = page.locator("#caption").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#caption").inner_text() != before
    for number, kind in enumerate(("Sagittal T2/STIR", "Sagittal T1", "Axial T2")):
        page.locator("button.tab").nth(number).press("Enter")
        assert page.locator("#caption").inner_text().startswith(f"{kind}, slice ")
        assert page.locator("figure.slice:visible").count() == 1
    page.locator(".scroller:visible input").focus()
    page.keyboard.press("End")
    assert " of " in page.locator("#caption").inner_text()
    last = page.locator(".scroller:visible input").get_attribute("max")
    assert page.locator("figure.slice:visible").get_attribute("data-slice") == last
    # Every control has a name, and shows where the focus is.
    assert page.evaluate(
        "[...document.querySelectorAll('button, input, a, select')].every("
        "e => (e.getAttribute('aria-label') || e.textContent).trim())"
    )
    page.locator("button.cell").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_text_has_contrast_and_nothing_is_wider_than_the_screen(page: Page, report: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    opened = Opened(page, report)
    opened.page.click(f"#cell-{L4_CANAL.column}")
    found = opened.page.evaluate(CONTRAST)
    assert found["checked"] > 150
    assert found["failures"] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        small = "[...document.querySelectorAll('button')].filter(b => b.checkVisibility()).map(b => b.getBoundingClientRect()).filter(b => b.height < 24 || b.width < 24).length"  # noqa: E501
        assert opened.page.evaluate(small) == 0
    opened.close()


def test_grades_are_told_apart_without_colour_and_print_keeps_the_table(opened: Opened) -> None:
    widths = opened.page.evaluate(
        "Object.fromEntries(['normal_mild', 'moderate', 'severe'].map(n => {"
        "const b = document.createElement('button'); b.className = 'cell ' + n; document.body.append(b);"
        "return [n, parseFloat(getComputedStyle(b).borderTopWidth)]}))"
    )
    assert widths["normal_mild"] < widths["moderate"] < widths["severe"]
    opened.page.emulate_media(media="print")
    assert opened.page.locator("table button.cell:visible").count() == 25
    assert opened.page.locator(".scroller:visible").count() == 0
    assert opened.page.locator("#details").is_hidden()
    assert opened.page.locator("#draft").is_hidden()  # a box that scrolls would be cut off
    pages = re.findall(rb"/Type\s*/Page\b", opened.page.pdf(prefer_css_page_size=True))
    assert 1 <= len(pages) <= 3


def test_the_file_is_small_self_contained_and_the_same_each_time(
    report: Path, graded: tuple[StudyPrediction, Study]
) -> None:
    text = report.read_text()
    assert len(text) < MAX_BYTES
    assert text == render_report(graded[1], graded[0])
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!data:|#)""", text)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert "default-src 'none'" in text
    learned_from = graded[0].provenance.learned_from
    assert "LumbarDISC" in learned_from and "non-commercial" in learned_from
    for word in ("not a medical device", learned_from, "How each grade was made"):
        assert word in text


def test_a_long_study_still_fits(graded: tuple[StudyPrediction, Study]) -> None:
    """Four hundred more axial slices: fewer and smaller pictures, those with points among them."""
    prediction, study = graded
    assert prediction.levels is not None
    series = tuple(
        replace(item, stacks=item.stacks * 14) if "Axial" in str(item.kind) else item for item in study.series
    )
    text = render_report(replace(study, series=series), prediction)
    assert len(text) < MAX_BYTES
    assert text.count('data-series="') > 100
    for target in TARGETS:
        assert f'class="point" data-target="{target.column}"' in text


@pytest.mark.parametrize("share_of_the_best", [1.1, 0.7, 0.3, 0.01])
def test_slices_are_the_largest_that_fit_though_not_every_size_is_drawn(
    graded: tuple[StudyPrediction, Study], share_of_the_best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, study = graded
    assert prediction.levels is not None

    def drawn(most_bytes: float, steps: tuple[tuple[int, int], ...]) -> tuple[int, str]:
        monkeypatch.setattr(report_images, "_MAX_SLICES_BYTES", most_bytes)
        monkeypatch.setattr(report_images, "_STEPS", steps)
        shown = report_images.shown_series(study, prediction.levels)
        data = "".join(item.data or "" for series in shown for item in series.slices)
        return len(data), data

    steps = report_images._STEPS
    sizes = [drawn(float("inf"), (step,)) for step in steps]
    most = share_of_the_best * sizes[0][0]
    expected = next((data for size, data in sizes if size <= most), sizes[-1][1])
    assert drawn(most, steps)[1] == expected


def test_points_are_shown_on_their_slices_where_they_lie(tmp_path: Path) -> None:
    """Upright slices of 40 × 60 pixels: from the corner of the picture."""
    (entry,) = find_studies(write_study(tmp_path, "501"))
    prediction, study = stand_in_pipeline().predict_entry(entry)
    assert study is not None
    levels = prediction.found
    placed = {
        (p.sight.series_id, p.sight.instance_number, p.condition, p.level): p.sight
        for p in levels.points
        if p.sight
    }
    found = set()
    for series in shown_series(study, levels):
        for item in series.slices:
            for point in item.points:
                target = next(target for target in TARGETS if target.column == point.target)
                key = (series.series_id, item.instance, target.condition, target.level)
                column, row = placed[key].xy_px
                expected = (column + 0.5) / 40 * item.width, (row + 0.5) / 60 * item.height
                assert (point.x, point.y) == pytest.approx(expected, abs=0.02)
                assert point.radius == pytest.approx(2.0 * item.px_per_mm)
                # A label beside the patient's right side goes to the left of it.
                assert point.on_left == (target.condition.side is Side.RIGHT)
                found.add(key)
    assert found == set(placed) and len(found) == 20


def test_a_cell_says_what_is_said_of_its_own_target(tmp_path: Path) -> None:
    (entry,) = find_studies(write_study(tmp_path, "501"))
    prediction, _ = stand_in_pipeline().predict_entry(entry)
    severe = Grade(np.array([0.0, 0.1, 0.9]), "seen")
    measured = (
        Measured(Quantity.CANAL_DEPTH, 15.0, 0.5, Level.L3_L4),
        Measured(Quantity.SAC_AREA, 99.0, 5.0, Level.L4_L5),
        Measured(Quantity.FORAMEN_HEIGHT, 16.5, 1.5, Level.L4_L5, Side.LEFT),
    )
    grades = {
        target: severe if grade.source == "seen" else grade for target, grade in prediction.grades.items()
    }
    said = replace(prediction, grades=grades, measurements=measured)
    cells = {target: _cell(None, said, said.found, (), target.condition, target.level) for target in TARGETS}
    assert {target for target, cell in cells.items() if cell.words == "Not graded"} == {
        target for target in TARGETS if target.level is Level.L1_L2
    }
    canal = Condition.SPINAL_CANAL_STENOSIS
    left = Target(Condition.of(ConditionGroup.FORAMINAL, Side.LEFT), Level.L4_L5)
    assert {target for target, cell in cells.items() if cell.contradicted} == {
        Target(canal, Level.L3_L4),
        left,
    }
    assert {
        target: [name for name, *_ in cell.measured] for target, cell in cells.items() if cell.measured
    } == {
        Target(canal, Level.L3_L4): ["sac depth"],
        Target(canal, Level.L4_L5): ["sac area"],
        left: ["height"],
    }


def test_series_without_points_are_shown_and_slices_away_from_levels_say_so(tmp_path: Path) -> None:
    (entry,) = find_studies(write_study(tmp_path, "501"))
    prediction, study = stand_in_pipeline().predict_entry(entry)
    assert study is not None
    levels = prediction.found
    few = {level: found for level, found in levels.levels.items() if level is not Level.L3_L4}
    shown = shown_series(study, replace(levels, levels=few, points=()))
    assert [series.series_id for series in shown] == ["11", "12", "13"]
    captions = [item.caption.partition(", ")[2] for item in shown[-1].slices]
    near = [f"near {level.label}" if level in few else "between levels" for level in reversed(LEVELS)]
    assert sorted(captions) == sorted(near)


def test_what_could_not_be_graded_is_said_in_words(tmp_path: Path, page: Page) -> None:
    images = write_studies(tmp_path / "test_images", ["501"], listed=["502"])
    (images / "501" / "12" / "2.dcm").write_text(CANARY)
    pipeline = stand_in_pipeline()
    for entry in find_studies(images):
        prediction, study = pipeline.predict_entry(entry)
        path = tmp_path / entry.study_id / "report.html"
        write_report(study, prediction, path)
        opened = Opened(page, path)
        warnings = opened.page.locator("#flags").inner_text()
        if entry.study_id == "501":
            assert "A lumbar level is not in the images." in warnings
            assert "501/12/2.dcm was not used" in warnings and "What to do" in warnings
            assert opened.page.locator("button.cell.prior").count() == 5
            opened.page.click("#cell-spinal_canal_stenosis_l1_l2")
            assert "only say how often" in opened.page.locator(".detail:visible").inner_text()
        else:
            assert "The study could not be graded." in warnings
            assert opened.page.locator("button.cell.prior").count() == 25
        assert "CANARY" not in path.read_text()
        assert opened.page.evaluate(CONTRAST)["failures"] == []
        opened.close()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def test_what_grades_were_read_on_all_the_same_is_said_before_many_files() -> None:
    files = tuple(Rejection(Reason.NOT_DICOM, "it is text", "501", "11", f"{n}.dcm") for n in range(20))
    doubt = Rejection(Reason.KIND_DISAGREES, "called Sagittal T2/STIR, but fluid is dark", "501", "11")
    prediction = stand_in_pipeline().facts.rejected("501", doubt, files)
    assert prediction.rejections[-1] == doubt
    text = render_report(None, prediction)
    assert text.count("was not used") == 11 and "9 more files or series are named" in text
    assert 0 < text.index("501/11 is doubtful: called Sagittal T2/STIR") < text.index("was not used")


def test_nothing_from_outside_becomes_markup() -> None:
    evil = "<img src=x onerror=alert(1)>\"'</script>{{7*7}}"
    prediction = stand_in_pipeline().predict_study(Study("501", ()))
    harmless = replace(prediction, flags=("a",), rejections=())
    parser, reference = _Tags(), _Tags()
    reference.feed(render_report(None, harmless))
    bad = Rejection(Reason.UNREADABLE, "m", file="f")
    reference.tags += ["li"]
    parser.feed(
        render_report(
            None,
            replace(
                harmless, study_id=evil, flags=(evil,), rejections=(replace(bad, message=evil, file=evil),)
            ),
        )
    )
    assert sorted(parser.tags) == sorted(reference.tags)


def test_weights_of_ones_own_are_not_called_synthetic(bundled_pipeline: Pipeline) -> None:
    models = dict(bundled_pipeline.provenance.models)
    models["classifier/spinal.safetensors"] = "0" * 64
    assert learned_words(models, {}) == OWN_WEIGHTS
    prediction = stand_in_pipeline().predict_study(Study("501", ()))
    text = render_report(None, replace(prediction, provenance=Provenance(models=models)))
    assert OWN_WEIGHTS in text and SYNTHETIC_ONLY not in text


def test_what_a_manifest_says_that_the_graders_learned_from_is_what_every_result_says(tmp_path: Path) -> None:
    assert read_told(tmp_path) == {}
    (tmp_path / "manifest.json").write_text(
        '{"files": {}, "learned_from": "X and Y", "licence": "CC BY 4.0"}'
    )
    learned = read_told(tmp_path)
    words = learned_words({}, learned)
    assert words == "The graders learned from X and Y. Licence of the weights: CC BY 4.0."
    prediction = stand_in_pipeline().predict_study(Study("501", ()))
    prediction = replace(prediction, provenance=Provenance(learned=learned))
    text = render_report(None, prediction)
    notice = text.split("<header>")[1].split("</header>")[0]
    limits = text.split("<h2>Data and limits of the models</h2>")[1].split("</section>")[0]
    draft = text.split("<textarea")[1].split("</textarea>")[0]
    assert [part.count(words) for part in (notice, limits, draft)] == [1, 1, 1] and text.count(words) == 3
    assert prediction.provenance.to_dict()["learned_from"] == words
    assert words in note(prediction.provenance)
    assert "X and Y" in reading_of_prediction(prediction).footer


def test_every_flag_of_the_program_has_words() -> None:
    root = Path(__file__).resolve().parents[4]
    code = "".join(
        path.read_text()
        for folder in ("detector", "classifier", "pipeline")
        for path in (root / folder).glob("*.py")
    )
    used = set(
        re.findall(r'"(no_[a-z_0-9]+|[a-z]+_(?:uncertain|suspected|absent|disagree|failed|rejected))"', code)
    )
    assert used - {"no_tables"} <= set(FLAG_WORDS)
    assert share_words(1.0) == ">99%" and share_words(0.834) == "83%"


def test_the_index_says_which_grade_of_a_study_is_the_least_certain() -> None:
    condition = "left_neural_foraminal_narrowing"
    rows = [
        {"condition": condition, "level": level, "source": source, "probabilities": {"a": p, "b": 1 - p}}
        for level, source, p in (("l1_l2", "seen", 0.9), ("l4_l5", "seen", 0.6), ("l5_s1", "prior", 0.5))
    ]
    assert least_certain_words(rows) == (0.6, "L4/L5 left foramen, 60%")
    assert least_certain_words(rows[2:]) == (2.0, "")
    severe = [{**row, "severity": "Severe"} for row in rows[:2]]
    assert worst_words(severe) == worst_words(severe[::-1]) == (2, "Severe, L1/L2")  # the surer one
    assert worst_words(rows[2:]) == (-1, "not graded")


def test_the_index_sorts_filters_and_links(tmp_path: Path, page: Page) -> None:
    images = write_studies(tmp_path / "test_images", ["501", "502", "503"], listed=["504"])
    pipeline = stand_in_pipeline()
    records = [pipeline.predict_entry(entry)[0].to_dict() for entry in find_studies(images)]
    for row in records[1]["targets"]:
        if (row["condition"], row["level"]) == ("spinal_canal_stenosis", "l3_l4"):
            row |= {
                "severity": "Severe",
                "probabilities": {"normal_mild": 0.1, "moderate": 0.1, "severe": 0.8},
            }
    learned_from = "The graders learned from <phantoms>."
    refused = Rejection(Reason.LINK, "a link <b> in an archive is never followed", file="7.dcm")
    write_index(
        records,
        {"501": "reports/501/report.html"},
        tmp_path / "index.html",
        learned_from=learned_from,
        rejections=[refused],
    )
    opened = Opened(page, tmp_path / "index.html")

    def studies() -> list[str]:
        return [text.strip() for text in page.locator("tbody tr:visible th").all_inner_texts()]

    assert studies() == ["501", "502", "503", "504"]
    assert learned_from in page.locator(".notice").first.inner_text()
    assert "7.dcm: a link <b> in an archive" in page.locator(".notice.flags").inner_text()
    page.get_by_role("button", name="Worst canal").press("Enter")
    page.get_by_role("button", name="Worst canal").press("Enter")
    assert studies()[0] == "502" and "Severe, L3/L4" in page.locator("tbody tr").first.inner_text()
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Worst canal")
    page.get_by_role("button", name="Least certain").press("Enter")
    assert studies()[-1] == "504", "what was not graded comes last"
    page.select_option("#at-least", "2")
    assert studies() == ["502"] and page.locator("#shown").inner_text() == "1 shown"
    page.select_option("#at-least", "-1")
    page.fill("#search", "could not be graded")
    assert studies() == ["504"]
    page.fill("#search", "")
    assert page.locator("a").get_attribute("href") == "reports/501/report.html"
    assert page.evaluate(CONTRAST)["failures"] == []
    opened.close()


def test_the_fields_of_the_index_say_what_is_shown_after_going_back(tmp_path: Path, page: Page) -> None:
    """A browser fills in what a field held before, and no script hears of it: all rows were shown."""
    write_study(tmp_path / "in", "501")
    records = [stand_in_pipeline().predict_entry(find_studies(tmp_path / "in")[0])[0].to_dict()]
    write_index(records, {}, tmp_path / "index.html", learned_from="")
    page.goto((tmp_path / "index.html").as_uri())
    page.select_option("#warned", "no")
    assert page.locator("tbody tr:visible").count() == 0
    page.goto("about:blank")
    page.go_back()
    fits = page.input_value("#warned") == "no"
    assert page.locator("tbody tr:visible").count() == int(not fits)


def test_a_draft_never_comes_back_in_the_report_of_another_patient(tmp_path: Path, page: Page) -> None:
    """One file, written anew while the browser was elsewhere: it filled in the text of the first patient."""
    path, reports = tmp_path / "report.html", []
    for study_id in ("501", "502"):
        write_study(tmp_path / "in" / study_id, study_id)
        prediction, study = stand_in_pipeline().predict_entry(find_studies(tmp_path / "in" / study_id)[0])
        reports.append(render_report(study, prediction))
    path.write_text(reports[0])
    page.goto(path.as_uri())
    page.fill("#draft", "TEXT OF THE FIRST")
    page.locator("input[type=range]").first.fill("0")
    page.goto("about:blank")
    path.write_text(reports[1])
    page.go_back()
    assert page.locator("h1").inner_text() == "Study 502"
    assert page.input_value("#draft").startswith("DRAFT OF RESEARCH SOFTWARE")
    shown = int(page.locator("input[type=range]").first.input_value()) + 1
    assert f"slice {shown} of" in page.locator("#caption").inner_text()


def test_without_javascript_a_page_says_what_does_not_work(
    report: Path, chromium: Browser, page: Page
) -> None:
    without = chromium.new_page(java_script_enabled=False)
    without.goto(report.as_uri())
    said = without.get_by_text("Without JavaScript this page shows every grade")
    assert said.is_visible()
    without.close()
    page.goto(report.as_uri())
    assert page.get_by_text("Without JavaScript").count() == 0


def test_points_placed_by_geometry_look_different(graded: tuple[StudyPrediction, Study]) -> None:
    prediction, study = graded
    assert prediction.levels is not None
    placed = tuple(replace(p, source=PointSource.PREDICTED) for p in prediction.levels.points)
    seen = render_report(study, replace(prediction, levels=replace(prediction.levels, points=placed)))
    assert seen.count('fill="none" stroke="#') > render_report(study, prediction).count(
        'fill="none" stroke="#'
    )
    assert len(CONDITIONS) * len(LEVELS) == 25 and isinstance(prediction.levels, SpineLevels)

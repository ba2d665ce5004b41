"""The local app: what is dropped is graded and shown; limits hold; other pages cannot use it."""

from __future__ import annotations

import errno
import json
import re
import signal
import threading
import time
import urllib.error
import urllib.request
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from data_prep.levels import SpineLevels
from data_prep.read.archives import ArchiveLimits
from data_prep.read.listing import LOOKED_AT_BYTES
from data_prep.study import Study
from pipeline.app.jobs import Job, Jobs, Refused, UploadLimits, unpack_all
from pipeline.app.server import TOKEN_HEADER, create_app, listen
from pipeline.grade import Pipeline
from pipeline.prediction import Provenance
from tests.pipeline.running_program import said
from tests.pipeline.stand_in import (
    CANARY,
    BrightnessGrader,
    StraightSpine,
    stand_in_files,
    stand_in_pipeline,
    write_study,
)
from tests.pipeline.warm_program import start_warm

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

CONTRAST = (Path(__file__).parents[1] / "contrast.js").read_text()


class Running:
    """The app in a thread, as ``lumbar app`` runs it."""

    def __init__(self, pipeline: Pipeline, folder: Path, limits: UploadLimits | None = None) -> None:
        self.folder = folder
        self.jobs = Jobs(pipeline, folder, limits or UploadLimits())
        listener = listen(0)
        self.port = listener.getsockname()[1]
        app = create_app(self.jobs, self.port)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()
        self.token = self.request("GET", "/")[1].split('lumbar-token" content="')[1].split('"')[0]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        status, text = self.request(method, path, body, **{TOKEN_HEADER: self.token})
        return status, json.loads(text)

    def graded(self, files: dict[str, bytes]) -> dict[str, Any]:
        """Upload, start, and wait for the end."""
        identifier = self.ask("POST", "/api/jobs")[1]["id"]
        for name, content in files.items():
            assert self.ask("PUT", f"/api/jobs/{identifier}/files?name={name}", content)[0] == 200
        assert self.ask("POST", f"/api/jobs/{identifier}/start")[0] == 200
        for _ in range(300):
            state = self.ask("GET", f"/api/jobs/{identifier}")[1]
            if state["state"] in ("done", "failed"):
                return dict(state)
            time.sleep(0.1)
        raise AssertionError("the job does not end")

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=20)
        self.jobs.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    app = Running(stand_in_pipeline(), tmp_path / "app")
    yield app
    app.close()


def study_files(folder: Path, study_id: str = "501") -> dict[str, bytes]:
    write_study(folder, study_id)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.dcm"))}


def test_a_folder_and_a_zip_dropped_in_chromium_are_graded_and_reported(
    chromium: Browser, bundled_pipeline: Pipeline, phantom_data: Path, tmp_path: Path
) -> None:
    studies = sorted((phantom_data / "train_images").iterdir())
    archive = tmp_path / "two.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (phantom_data / "train_images").rglob("*.dcm"):
            file.write(path, path.relative_to(phantom_data))
    app = Running(bundled_pipeline, tmp_path / "app")
    address = f"http://127.0.0.1:{app.port}/"
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(address)
        assert page.evaluate(CONTRAST)["failures"] == []
        page.set_input_files("#folder", str(studies[0]))
        page.wait_for_selector("iframe.result", timeout=120_000)
        frame = page.frame_locator("iframe.result")
        assert frame.locator("h1").inner_text() == f"Study {studies[0].name}"
        frame.locator("#cell-spinal_canal_stenosis_l4_l5").click()
        assert "L4/L5 canal" in frame.locator(".detail:visible h3").inner_text()
        page.set_input_files("#zip", str(archive))
        page.wait_for_selector("article:first-child iframe.result", timeout=120_000)
        both = page.frame_locator("article:first-child iframe.result")
        both.locator("tbody tr").nth(1).wait_for()
        assert both.locator("tbody tr").count() == 2
        both.get_by_role("link", name=studies[1].name).click()
        both.locator("#cell-spinal_canal_stenosis_l4_l5").wait_for()
        assert both.locator("h1").inner_text() == f"Study {studies[1].name}"
        for left in (1, 0):
            page.get_by_role("button", name="Remove images and results").first.click()
            page.wait_for_function(f"document.querySelectorAll('article').length === {left}")
        for _ in range(100):
            if not list((tmp_path / "app").iterdir()):
                break
            page.wait_for_timeout(50)
        assert not list((tmp_path / "app").iterdir())
        assert messages == []
        assert all(url.startswith((address, "data:")) for url in requests)
    finally:
        page.close()
        app.close()


@pytest.fixture
def page_of(running: Running, page: Page) -> Page:
    """The page of an app whose stages need no weights."""
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto(f"http://127.0.0.1:{running.port}/")
    return page


def _state(page: Page, pattern: str) -> str:
    """What the first job on a page says, once it begins so."""
    for _ in range(600):
        states = page.locator("article .state").all_inner_texts()
        if states and re.match(pattern, states[0]):
            return str(states[0])
        page.wait_for_timeout(50)
    raise AssertionError(f"waited in vain for {pattern!r}: {states}")


def _stand_still(running: Running, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What lets the grading of an app go on, which now waits."""
    gate = threading.Event()
    detect = running.jobs._pipeline.detector.predict
    monkeypatch.setattr(
        running.jobs._pipeline.detector, "predict", lambda study: (gate.wait(30), detect(study))[1]
    )
    return gate


def test_a_file_that_cannot_be_taken_in_is_named_and_ends_nothing(
    page_of: Page, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large, hidden, removed since it was chosen, a zip that is broken: beside a good study."""
    folder = tmp_path / "in"
    write_study(folder, "501")
    image = (folder / "501" / "11" / "1.dcm").read_bytes()
    (folder / "501" / "9.dcm").write_bytes(image + bytes(2_000_000))
    (folder / "501" / "film.mp4").write_bytes(bytes(2_000_000))
    (folder / "501" / ".8.dcm").write_bytes(image + bytes(900_000))
    (folder / "501" / "7.dcm").write_bytes(image)
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 nothing")
    monkeypatch.setattr(running.jobs, "limits", replace(running.jobs.limits, max_file_bytes=1_000_000))
    page_of.reload()
    page_of.route(
        "**/files*", lambda route: ((folder / "501" / "7.dcm").unlink(missing_ok=True), route.continue_())
    )
    page_of.set_input_files("#folder", str(folder))
    assert _state(page_of, "Done|Not").startswith("Done: 1 study. Files, series or studies")
    assert page_of.locator("iframe.result").count() == 1
    page_of.set_viewport_size({"width": 360, "height": 740})
    assert page_of.evaluate("document.documentElement.scrollWidth") == 360, "wider than the screen"
    assert page_of.evaluate(CONTRAST)["failures"] == []
    said = page_of.locator(".of-no-study li").all_inner_texts()
    assert sorted(words.partition(": ")[0] for words in said) == [
        ".8.dcm", "7.dcm", "9.dcm", "broken.zip",
    ]  # fmt: skip
    (job,) = running.jobs._jobs.values()
    assert (job.n_graded, job.n_unused) == (1, 4)


def test_what_is_loaded_anew_shows_the_jobs_of_its_tab_and_no_others(
    page_of: Page, chromium: Browser, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = _stand_still(running, monkeypatch)
    write_study(tmp_path, "501")
    page_of.set_input_files("#folder", str(tmp_path / "501"))
    _state(page_of, "Grading")
    page_of.reload()
    _state(page_of, "Grading")
    gate.set()
    assert _state(page_of, "Done") == "Done: 1 study."
    page_of.reload()
    _state(page_of, "Done")
    assert page_of.locator("article h2").all_inner_texts() == ["501"]
    other = chromium.new_page()
    other.goto(page_of.url)
    other.wait_for_timeout(500)
    assert other.locator("article").count() == 0
    other.close()
    page_of.get_by_role("button", name="Remove images and results").click()
    page_of.reload()
    page_of.wait_for_timeout(500)
    assert page_of.locator("article").count() == 0 and not list(running.folder.iterdir())


@pytest.mark.parametrize("when", ["Taking in", "Grading"])
def test_a_cancelled_job_leaves_nothing(
    page_of: Page, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    gate = _stand_still(running, monkeypatch)
    write_study(tmp_path, "501")
    if when == "Taking in":  # one file is never sent to its end
        page_of.route("**/files*", lambda route: None if "5.dcm" in route.request.url else route.continue_())
    page_of.set_input_files("#folder", str(tmp_path / "501"))
    _state(page_of, when)
    page_of.get_by_role("button", name="Cancel").click()
    gate.set()
    for _ in range(100):
        if not list(running.folder.iterdir()):
            break
        page_of.wait_for_timeout(50)
    assert not list(running.folder.iterdir()) and not running.jobs._jobs
    assert page_of.locator("article").count() == 0


def test_an_upload_ends_with_its_page(page_of: Page, running: Running, tmp_path: Path) -> None:
    write_study(tmp_path, "501")
    page_of.route("**/files*", lambda route: None if "5.dcm" in route.request.url else route.continue_())
    page_of.set_input_files("#folder", str(tmp_path / "501"))
    _state(page_of, "Taking in 15 files, about 0 s|Taking in 15 files$")
    page_of.goto("about:blank")
    for _ in range(100):
        if not list(running.folder.iterdir()):
            break
        page_of.wait_for_timeout(50)
    assert not list(running.folder.iterdir())


def test_an_upload_that_stands_still_is_given_up_though_no_other_begins(tmp_path: Path) -> None:
    app = Running(stand_in_pipeline(), tmp_path / "app", UploadLimits(idle_s=0.3))
    try:
        identifier = app.ask("POST", "/api/jobs")[1]["id"]
        assert app.ask("PUT", f"/api/jobs/{identifier}/files?name=1/2/1.dcm", bytes(900))[0] == 200
        for _ in range(100):
            if not list(app.folder.iterdir()):
                break
            time.sleep(0.05)
        assert not list(app.folder.iterdir())
        assert app.ask("GET", f"/api/jobs/{identifier}")[0] == 404
    finally:
        app.close()


# What a browser gives of two folders with one name, dropped together.
_TWO_OF_ONE_NAME = """files => {
  const child = (name, data) => ({ isFile: true, name, file: (good) =>
    good(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name)) });
  const folder = (some) => {
    const batches = [some.map(([name, data]) => child(name, data)), []];
    const reader = { readEntries: (good) => good(batches.shift()) };
    return { isFile: false, name: "DICOM", createReader: () => reader };
  };
  const event = new Event("drop", { cancelable: true });
  const items = files.map((some) => ({ webkitGetAsEntry: () => folder(some) }));
  Object.defineProperty(event, "dataTransfer", { value: { items } });
  document.getElementById("drop").dispatchEvent(event);
}"""


def test_two_folders_of_one_name_are_both_taken_in(page_of: Page, tmp_path: Path) -> None:
    folders = []
    for study in ("501", "502"):
        write_study(tmp_path, study)
        files = sorted((tmp_path / study).rglob("*.dcm"))
        folders.append([(f"{i}.dcm", b64encode(path.read_bytes()).decode()) for i, path in enumerate(files)])
    page_of.evaluate(_TWO_OF_ONE_NAME, folders)
    assert "Done: 2 studies" in _state(page_of, "Done|Nothing|Not graded")


def test_a_refusal_while_others_are_sent_stays_on_the_page(page_of: Page, tmp_path: Path) -> None:
    """What was sent beside it and ends later said "Taking in" for ever."""
    write_study(tmp_path, "501")

    def answer(route: Route) -> None:
        if "1.dcm" in route.request.url:
            route.fulfill(status=507, json={"detail": "No space left on device"})
        else:
            page_of.wait_for_timeout(200)
            route.continue_()

    page_of.route("**/files*", answer)
    page_of.set_input_files("#folder", str(tmp_path / "501"))
    _state(page_of, "Not graded: No space left on device")
    page_of.wait_for_timeout(1500)
    assert _state(page_of, ".") == "Not graded: No space left on device"


def test_an_app_that_has_ended_is_said(page_of: Page, running: Running, tmp_path: Path) -> None:
    write_study(tmp_path, "501")
    running.close()
    page_of.set_input_files("#folder", str(tmp_path / "501"))
    assert "the program does not answer" in _state(page_of, "Not graded")


def test_what_could_not_be_graded_is_no_study_that_is_done(
    page_of: Page, running: Running, tmp_path: Path
) -> None:
    write_study(tmp_path / "in", "501")
    write_study(tmp_path / "in", "502")
    for path in (tmp_path / "in" / "502").rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:300])
    page_of.set_input_files("#folder", str(tmp_path / "in"))
    assert _state(page_of, "Done").startswith("Done: 1 of 2 studies graded. Nothing could be graded of")
    for path in (tmp_path / "in" / "501").rglob("*.dcm"):
        path.unlink()
    page_of.set_input_files("#folder", str(tmp_path / "in" / "502"))
    assert _state(page_of, "Nothing|Not")


def test_the_page_says_what_the_graders_of_this_run_learned_from(tmp_path: Path) -> None:
    provenance = Provenance(learned={"learned_from": "X & Y", "licence": "CC BY 4.0"})
    app = Running(Pipeline(StraightSpine(), BrightnessGrader(), provenance), tmp_path / "app")
    try:
        text = app.request("GET", "/")[1]
    finally:
        app.close()
    assert "The graders learned from X &amp; Y. Licence of the weights: CC BY 4.0." in text


def test_a_job_is_graded_its_input_removed_and_only_its_results_served(
    running: Running, tmp_path: Path
) -> None:
    state = running.graded(study_files(tmp_path / "in"))
    assert (state["state"], state["studies"], state["not_used"]) == ("done", 1, 0)
    assert set(state["results"]) == {
        "index.html",
        "reports/501/report.html",
        "submission.csv",
        "targets.csv",
        "refused.csv",
        "predictions.json",
    }
    base = f"/jobs/{state['id']}"
    assert "Study 501" in running.request("GET", f"{base}/reports/501/report.html")[1]
    for name in ("studies/501.json", "../../../etc/passwd", "%2e%2e/input", "input/501/11/1.dcm"):
        assert running.request("GET", f"{base}/{name}")[0] == 404
    assert running.request("GET", "/jobs/no-such-job/index.html")[0] == 404
    assert [path.name for path in running.folder.glob("*/*")] == ["output"]
    assert running.ask("DELETE", f"/api/jobs/{state['id']}") == (200, {"removed": True})
    assert not list(running.folder.iterdir())
    assert running.ask("GET", f"/api/jobs/{state['id']}")[0] == 404


def test_jobs_wait_for_each_other(running: Running, tmp_path: Path) -> None:
    gate = threading.Event()
    detect = running.jobs._pipeline.detector.predict
    running.jobs._pipeline.detector.predict = lambda study: (gate.wait(30), detect(study))[1]  # type: ignore[method-assign]
    identifiers = []
    for number in (501, 502):
        identifiers.append(running.ask("POST", "/api/jobs")[1]["id"])
        for name, content in study_files(tmp_path / str(number), str(number)).items():
            running.ask("PUT", f"/api/jobs/{identifiers[-1]}/files?name={name}", content)
        running.ask("POST", f"/api/jobs/{identifiers[-1]}/start")
    time.sleep(0.3)
    states = [running.ask("GET", f"/api/jobs/{one}")[1]["state"] for one in identifiers]
    assert states == ["working", "waiting"]
    assert running.ask("PUT", f"/api/jobs/{identifiers[0]}/files?name=1.dcm", b"x")[0] == 413
    assert running.ask("POST", f"/api/jobs/{identifiers[0]}/start")[0] == 409
    assert running.ask("DELETE", f"/api/jobs/{identifiers[0]}")[0] == 200
    gate.set()
    for _ in range(200):
        state = running.ask("GET", f"/api/jobs/{identifiers[1]}")[1]
        if state["state"] == "done":
            break
        time.sleep(0.05)
    assert state["state"] == "done"
    # The removed one left nothing.
    assert len(list(running.folder.iterdir())) == 1


def test_other_pages_cannot_use_it(running: Running) -> None:
    own = f"127.0.0.1:{running.port}"
    token = {TOKEN_HEADER: running.token}
    assert running.request("POST", "/api/jobs", **token)[0] == 201
    # DNS rebinding: another name for this address.
    for host in ("evil.example", f"evil.example:{running.port}", "127.0.0.1", ""):
        assert running.request("GET", "/", Host=host)[0] == 403
        assert running.request("POST", "/api/jobs", Host=host, **token)[0] == 403
    # Request forgery: another origin, no token, a wrong one.
    assert running.request("POST", "/api/jobs", Origin="http://evil.example", **token)[0] == 403
    assert running.request("POST", "/api/jobs", Origin="null", **token)[0] == 403
    assert running.request("POST", "/api/jobs", Sec_Fetch_Site="cross-site", **token)[0] == 403
    assert running.request("POST", "/api/jobs", Origin=f"http://{own}")[0] == 403
    # A link on another page leads to the start page alone.
    assert running.request("GET", "/", Sec_Fetch_Site="cross-site")[0] == 200
    assert running.request("GET", "/jobs/1/index.html", Sec_Fetch_Site="cross-site")[0] == 403
    assert running.request("POST", "/api/jobs", **{TOKEN_HEADER: "wrong"})[0] == 403
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert running.request("GET", path)[0] == 404
    answer = urllib.request.urlopen(f"http://{own}/")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["Cache-Control"] == "no-store"


def test_it_listens_on_this_machine_alone(running: Running) -> None:
    (listener,) = [sock for server in running.server.servers for sock in server.sockets]
    assert listener.getsockname()[0] == "127.0.0.1"


def test_upload_limits_hold_while_bytes_arrive(tmp_path: Path) -> None:
    limits = UploadLimits(
        max_files=3, max_file_bytes=1000, max_archive_bytes=2000, max_total_bytes=3000, max_jobs=2
    )
    app = Running(stand_in_pipeline(), tmp_path / "app", limits)
    try:
        one = app.ask("POST", "/api/jobs")[1]["id"]
        put = f"/api/jobs/{one}/files?name="
        assert app.ask("PUT", put + "1/2/1.dcm", bytes(1001))[0] == 413
        assert not [path for path in (tmp_path / "app").rglob("*") if path.is_file()]
        status, answer = app.ask("PUT", put + "a.zip", bytes(2001))
        assert status == 413 and "leave it out" in answer["detail"]
        assert app.ask("PUT", put + "1/2/1.dcm", bytes(900))[0] == 200
        assert app.ask("PUT", put + "1/2/2.dcm", bytes(10))[0] == 413  # a fourth file
        assert app.ask("POST", "/api/jobs")[0] == 201
        status, answer = app.ask("POST", "/api/jobs")
        assert status == 429 and "wait" in answer["detail"]
        two = next(job for job in app.jobs._jobs if job != one)
        for number in range(3):
            status, _ = app.ask("PUT", f"/api/jobs/{two}/files?name=b{number}.zip", bytes(1400))
        assert status == 413
    finally:
        app.close()


def test_a_file_that_is_sent_twice_takes_no_other_ones_place(running: Running) -> None:
    put = f"/api/jobs/{running.ask('POST', '/api/jobs')[1]['id']}/files?name="
    assert running.ask("PUT", f"{put}1/2/1.dcm", b"one")[0] == 200
    for name in ("1/2/1.dcm", "1/2/1.dcm/2.dcm"):
        status, answer = running.ask("PUT", put + name, b"other")
        assert status == 413 and "sent twice" in answer["detail"]
    assert [path.read_bytes() for path in running.folder.rglob("*") if path.is_file()] == [b"one"]


def ended(jobs: Jobs, job: Job) -> Job:
    for _ in range(500):
        if job.state in ("done", "failed"):
            break
        time.sleep(0.01)
    return job


def test_of_jobs_that_have_ended_the_last_ones_are_kept(tmp_path: Path) -> None:
    jobs = Jobs(stand_in_pipeline(), tmp_path, UploadLimits(max_kept=2))
    made = []
    for number in range(3):
        made.append(jobs.create(f"job {number}"))
        jobs.start(made[-1])
        ended(jobs, made[-1])
    assert [job.folder.is_dir() for job in made] == [False, True, True]
    with pytest.raises(KeyError):
        jobs.get(made[0].id)
    jobs.close()


def test_a_job_that_was_removed_takes_nothing_more_and_is_never_graded(tmp_path: Path) -> None:
    gate, seen = threading.Event(), []
    pipeline = stand_in_pipeline()
    detect = pipeline.detector.predict
    pipeline.detector.predict = lambda study: (gate.wait(30), seen.append(study.study_id), detect(study))[2]  # type: ignore[method-assign]
    jobs = Jobs(pipeline, tmp_path / "app")
    made = []
    for study in ("501", "502", "503"):
        made.append(jobs.create())
        write_study(made[-1].input, study)
        jobs.start(made[-1])
    jobs.remove(made[1])
    assert not made[1].folder.exists()
    with pytest.raises(Refused, match="this job is gone"):
        jobs.count(made[1], made[1].input / "1.dcm", 0, 1)
    gate.set()
    assert ended(jobs, made[2]).state == "done" and seen == ["501", "503"]
    jobs.close()


def test_an_upload_to_a_job_that_was_removed_makes_no_folder_that_nobody_removes(tmp_path: Path) -> None:
    jobs = Jobs(stand_in_pipeline(), tmp_path / "app")
    job = jobs.create()
    jobs.remove(job)
    with pytest.raises(Refused, match="takes no more files"):
        jobs.place_for(job, "1.dcm")
    jobs.close()


def test_a_file_is_bounded_however_small_its_pieces_are(tmp_path: Path) -> None:
    jobs = Jobs(stand_in_pipeline(), tmp_path / "app", UploadLimits(max_file_bytes=1000))
    job = jobs.create()
    jobs.count(job, job.input / "1.dcm", 990, 10)
    with pytest.raises(Refused, match="more than 1000 bytes"):
        jobs.count(job, job.input / "1.dcm", 991, 10)
    jobs.close()


def test_a_file_is_bounded_while_it_arrives_in_pieces_and_one_without_a_place_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out: list[int] = []
    monkeypatch.setattr(Jobs, "leave_out", lambda _jobs, _job, _name, start: left_out.append(len(start)))
    app = Running(stand_in_pipeline(), tmp_path / "app", UploadLimits(max_file_bytes=1_000_000))
    try:
        put = f"/api/jobs/{app.ask('POST', '/api/jobs')[1]['id']}/files?name="
        assert app.ask("PUT", f"{put}1.dcm", bytes(900_000))[0] == 200
        assert app.ask("PUT", f"{put}2.dcm", bytes(1_500_000))[0] == 413
        assert app.ask("PUT", f"{put}.hidden", bytes(900_000))[0] == 200
    finally:
        app.close()
    assert left_out == [LOOKED_AT_BYTES]


@pytest.mark.parametrize("end", ["close", "remove"])
def test_an_app_that_ends_stops_grading_and_waits_for_it(tmp_path: Path, end: str) -> None:
    """The folder is removed next: nobody must be writing into it. So it is of a job that is removed."""
    begun, seen = threading.Event(), []
    pipeline = stand_in_pipeline()
    detect = pipeline.detector.predict

    def slow(study: Study) -> SpineLevels:
        begun.set()
        time.sleep(0.3)
        seen.append(study.study_id)
        return detect(study)

    pipeline.detector.predict = slow  # type: ignore[method-assign]
    jobs = Jobs(pipeline, tmp_path / "app")
    job = jobs.create()
    for study in ("501", "502", "503"):
        write_study(job.input, study)
    jobs.start(job)
    assert begun.wait(20)
    if end == "remove":
        jobs.remove(job)
        ended(jobs, job)
    jobs.close()
    assert not jobs._worker.is_alive()
    assert (job.state, job.message, seen) == ("failed", "stopped", ["501"])
    assert not job.input.exists()


def test_a_full_disk_is_said_and_what_to_do(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / CANARY))

    monkeypatch.setattr("pipeline.app.jobs.run_batch", full)
    state = running.graded(study_files(tmp_path / "in"))
    message = "No space left on device: make room on the disk, and try again"
    assert (state["state"], state["message"]) == ("failed", message)
    monkeypatch.setattr(running.jobs, "place_for", full)
    identifier = running.ask("POST", "/api/jobs")[1]["id"]
    assert running.ask("PUT", f"/api/jobs/{identifier}/files?name=1.dcm", b"x") == (507, {"detail": message})


def test_names_of_uploads_cannot_leave_the_folder_and_bad_input_says_what_to_do(
    running: Running, tmp_path: Path
) -> None:
    state = running.graded({"../../../escape.dcm": b"no image " + CANARY.encode(), "%2Fetc%2F1.dcm": b"x"})
    assert state["state"] == "failed"
    assert "What to do: give a folder or zip that holds DICOM files" in state["message"]
    assert "CANARY" not in state["message"]
    assert not list(tmp_path.rglob("escape*"))
    archive = tmp_path / "bad.zip"
    archive.write_bytes(b"PK\x03\x04 nothing")
    state = running.graded({"bad.zip": archive.read_bytes()})
    assert state["state"] == "failed" and "make the zip again" in state["message"]


def test_an_upload_that_is_broken_off_leaves_no_file(running: Running) -> None:
    identifier = running.ask("POST", "/api/jobs")[1]["id"]
    connection = HTTPConnection("127.0.0.1", running.port, timeout=30)
    connection.putrequest("PUT", f"/api/jobs/{identifier}/files?name=1/2/1.dcm")
    connection.putheader("Content-Length", "100000")
    connection.putheader(TOKEN_HEADER, running.token)
    connection.endheaders(b"x" * 5000)
    time.sleep(0.3)
    connection.close()
    time.sleep(0.3)
    assert not [path for path in running.folder.rglob("*") if path.is_file()]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{running.port}/api/jobs/{identifier}")


def test_a_failing_study_does_not_end_the_app_and_tells_nothing(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"{CANARY} in /home/somebody")

    files = study_files(tmp_path / "in")
    monkeypatch.setattr("pipeline.app.jobs.run_batch", broken)
    state = running.graded(files)
    assert state["state"] == "failed" and "RuntimeError" in state["message"]
    assert "CANARY" not in state["message"] and "/home" not in state["message"]
    monkeypatch.undo()
    assert running.graded(files)["state"] == "done"


def test_a_request_that_fails_within_says_where_and_quotes_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> None:
        raise RuntimeError(f"{CANARY} in /home/somebody")

    monkeypatch.setattr(running.jobs, "create", broken)
    status, answer = running.ask("POST", "/api/jobs")
    assert status == 500 and "internal failure (RuntimeError) at " in answer["detail"]
    assert "internal failure (RuntimeError) at " in caplog.text and "Traceback" not in caplog.text
    assert "CANARY" not in answer["detail"] + caplog.text


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_serves_until_it_is_ended_and_leaves_nothing(
    tmp_path: Path, sent: signal.Signals
) -> None:
    """Ctrl-C, an end of the system, a closed terminal; an upload that stands still holds nothing up."""
    command, log = ["app", "--port", "0", "--no-browser"], tmp_path / "app.log"
    environment = {"TMPDIR": str(tmp_path)}
    process = start_warm("pipeline", command, out=log, err=tmp_path / "err.log", environment=environment)
    try:
        address = said(log, r"http://127\.0\.0\.1:\d+/")
        page = urllib.request.urlopen(address, timeout=30).read().decode()
        assert "Drop a folder or a zip" in page
        token = page.split('lumbar-token" content="')[1].split('"')[0]
        connection = HTTPConnection("127.0.0.1", int(address.rsplit(":")[-1].strip("/")), timeout=30)
        connection.request("POST", "/api/jobs", headers={TOKEN_HEADER: token})
        identifier = json.loads(connection.getresponse().read())["id"]
        connection.putrequest("PUT", f"/api/jobs/{identifier}/files?name=1/2/1.dcm")
        connection.putheader("Content-Length", "100000")
        connection.putheader(TOKEN_HEADER, token)
        connection.endheaders(b"x" * 5000)
        time.sleep(0.3)
        (folder,) = tmp_path.glob("lumbar-app-*")
        assert list(folder.rglob("1.dcm"))
        process.send_signal(sent)
        process.wait(timeout=30)
    finally:
        process.kill()
    assert not list(tmp_path.glob("lumbar-app-*"))
    assert "Traceback" not in (tmp_path / "err.log").read_text()


def test_a_zip_that_is_broken_or_too_large_in_the_midst_leaves_no_part(tmp_path: Path) -> None:
    """Unpacked in part it would be graded as if it were whole. Limits hold for all zips together."""
    with zipfile.ZipFile(tmp_path / "1.zip", "w") as file:
        for place, content in stand_in_files("501").items():
            file.writestr(str(place), content)
    (tmp_path / "2.zip").write_bytes((tmp_path / "1.zip").read_bytes())
    size = sum(len(content) for content in stand_in_files("501").values())
    limits = ArchiveLimits(max_total_bytes=size * 3 // 2)
    (refused,) = unpack_all(tmp_path, limits)
    assert (refused.reason, refused.file) == ("archive_too_large", "2.zip")
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {"1"}


def test_a_zip_never_goes_into_a_folder_of_its_name(tmp_path: Path) -> None:
    """Images of two patients would be one study."""
    write_study(tmp_path / "a", "501")
    for name in ("a.zip", "a-zip.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for place, content in stand_in_files("502").items():
                file.writestr(str(Path("501", *place.parts[1:])), content)
    assert unpack_all(tmp_path) == ()
    folders = [tmp_path / name for name in ("a", "a-zip", "a-zip-zip")]
    assert sorted(path for path in tmp_path.iterdir()) == folders
    images = [folder / "501" / "11" / "1.dcm" for folder in folders]
    assert len({path.read_bytes() for path in images}) == 2


def test_members_that_are_refused_are_named_where_nothing_else_is_there(running: Running) -> None:
    """Encrypted ones: the message said alone that there is no image."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("501/11/1.dcm", b"secret")
    packed = bytearray(content.getvalue())
    packed[packed.index(b"PK\x03\x04") + 6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    state = running.graded({"a.zip": bytes(packed)})
    assert state["state"] == "failed" and "1.dcm: it is encrypted" in state["message"]


def test_an_image_that_has_no_place_is_named(running: Running, images: Path) -> None:
    """A hidden one, and one too deep; what a Mac adds is none."""
    files = {
        f"501/{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(images.rglob("*.dcm"))
    }
    image = next(iter(files.values()))
    files |= {"501/.1.dcm": image, "a/" * 20 + "2.dcm": image, "501/._2.dcm": b"\0\5\26\7" + bytes(160)}
    state = running.graded(files)
    assert state["state"] == "done" and state["not_used"] == 2

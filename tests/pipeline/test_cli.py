"""The command line: light to start, exit codes, every problem named, nothing of the patient on the screen."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main
from rich.console import Console

import pipeline.cli
from classifier.prior import level_prior
from data_prep.base.manifest import WeightsRejected
from data_prep.phantom import write_dataset
from data_prep.study import Study
from data_prep.vocabulary import TARGETS
from pipeline.cli import app
from pipeline.commands import console
from pipeline.grade import Pipeline
from pipeline.results.pictures.overlays import draw_overlays
from pipeline.results.submission import build_submission, write_submission
from tests.command_line import lumbar
from tests.pipeline.stand_in import CANARY, write_study, write_table

COMMANDS = [
    "predict",
    "demo",
    "show",
    "app",
    "score",
    "phantom",
    "check",
    "serve",
    "annotations export",
    "export",
    "train",
]


def write_labels(path: Path, study_ids: list[str]) -> None:
    rows = [f"{study}" + ",Normal/Mild" * 25 for study in study_ids]
    path.write_text("\n".join(["study_id," + ",".join(t.column for t in TARGETS), *rows]))


def test_no_help_imports_a_heavy_package() -> None:
    """Of the program and of every command and group below it."""
    code = """
        import sys
        from functools import cache
        import typer.main
        import typer.testing
        from typer.testing import CliRunner
        import pipeline.cli

        # Typer makes all commands anew for every call of one.
        typer.testing._get_command = cache(typer.testing._get_command)

        def names(group, path=()):
            yield path
            for name, command in getattr(group, "commands", {}).items():
                yield from names(command, (*path, name))

        heavy = "torch ultralytics timm ray onnx onnxruntime matplotlib cv2 pandas numpy scipy "
        heavy += "sklearn pydicom highdicom pynetdicom fastapi uvicorn jinja2"
        for words in names(typer.main.get_command(pipeline.cli.app)):
            result = CliRunner().invoke(pipeline.cli.app, [*words, "--help"])
            assert result.exit_code == 0 and "Usage: " in result.output, words
            print(*words, [name for name in heavy.split() if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) >= 25 and {"predict []", "train []", "export []", "detector train []"} < set(lines)
    assert [line for line in lines if not line.endswith("[]")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = lumbar(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: lumbar {command}" in result.output


def test_python_m_pipeline_is_lumbar() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "no-such-command"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "lumbar" in done.stderr


def test_score_prints_every_term(tmp_path: Path) -> None:
    submission, labels = tmp_path / "submission.csv", tmp_path / "train.csv"
    write_submission(build_submission({"9": {t: level_prior(t) for t in TARGETS}}), submission)
    write_labels(labels, ["9"])
    figures = json.loads(lumbar("score", submission, labels, "--json").stdout)
    assert list(figures)[:5] == ["score", "spinal", "foraminal", "subarticular", "any_severe_spinal"]
    printed = lumbar("score", submission, tmp_path).stdout
    assert f"{figures['score']:.4f}" in printed
    assert f"{figures['any_severe_spinal']:.4f}" in printed


def test_score_names_what_it_is_lost_on_and_what_to_do_with_a_part_of_the_studies(tmp_path: Path) -> None:
    submission, labels, cases = (tmp_path / name for name in ("submission.csv", "train.csv", "cases.csv"))
    write_submission(build_submission({"9": {t: level_prior(t) for t in TARGETS}}), submission)
    write_labels(labels, ["9", "10"])
    refused = lumbar("score", submission, labels)
    assert refused.exit_code == 1 and "--common scores the studies that both tables have" in refused.stderr
    result = lumbar("score", submission, labels, "--common", "--cases", cases)
    assert result.exit_code == 0 and "level prior" in result.stdout
    assert "intervals over so few studies" in result.stdout
    table = pd.read_csv(cases)
    weight = table["label"].map({"Normal/Mild": 1, "Moderate": 2, "Severe": 4})
    canal = table["condition"] == "spinal_canal_stenosis"
    figures = json.loads(lumbar("score", submission, labels, "--common", "--json").stdout)
    assert len(table) == 25 and table["loss"].is_monotonic_decreasing
    mean = table["loss"][canal].sum() / weight[canal].sum()
    assert mean == pytest.approx(figures["spinal"], abs=1e-3)


def test_score_refuses_with_every_problem(tmp_path: Path) -> None:
    submission, labels = tmp_path / "submission.csv", tmp_path / "train.csv"
    frame = build_submission({"9": {t: level_prior(t) for t in TARGETS}})
    frame.loc[0, "severe"] = float("nan")
    frame.loc[1, "row_id"] = "9_unknown\x1b[2J"
    write_submission(frame, submission)
    write_labels(labels, ["9"])
    result = lumbar("score", submission, labels)
    assert result.exit_code == 1
    assert "1 missing: 9_left_neural_foraminal_narrowing_l2_l3" in result.stderr
    assert "1 unknown: 9_unknown" in result.stderr
    assert "1 not finite: 9_left_neural_foraminal_narrowing_l1_l2" in result.stderr
    assert "\x1b[2J" not in result.output


def test_score_refuses_a_table_without_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("row_id,normal_mild\n1,2\n")
    assert lumbar("score", tmp_path / "a.csv", tmp_path / "a.csv").exit_code == 1
    assert lumbar("score", tmp_path / "missing.csv", tmp_path / "a.csv").exit_code == 2


def test_a_long_identifier_leaves_room_for_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=stream, width=80))
    uid = "2.25.189799037319203022465147413177793331346"
    with console.progress("studies", 1) as done:
        done(f"{uid}: grading")
    text = stream.getvalue()
    assert "studies 2.25.18979903…3331346: grading" in text and "1/1" in text and "left 0:00:00" in text


@pytest.mark.usefixtures("stand_in")
def test_predict_writes_results_and_says_where(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = lumbar("predict", images, "-o", out)
    assert result.exit_code == 0, result.output
    assert "1 of 1 studies graded" in result.stdout
    assert "20 graded where a detector saw them, 0 where geometry placed them, 5 not graded" in result.stdout
    assert f"report      {out / 'reports' / '501' / 'report.html'}" in result.stdout
    assert "reports/501/report.html" in (out / "index.html").read_text()
    assert (out / "pictures" / "501.png").stat().st_size > 10_000
    assert len((out / "submission.csv").read_text().splitlines()) == 26
    again = json.loads(lumbar("predict", images, "-o", out, "--json").stdout)
    assert (again["studies"], again["resumed"], again["rejected"], again["rejections"]) == (1, 1, 0, [])
    (study,) = json.loads((out / "predictions.json").read_text())["studies"]
    assert study["flags"] and again["flags"] == dict.fromkeys(study["flags"], 1)
    assert f"flags       {min(study['flags'])} × 1" in result.stdout


@pytest.mark.usefixtures("stand_in")
def test_predict_names_what_it_rejects_and_exits_with_3(images: Path, tmp_path: Path) -> None:
    (images / "501" / "12" / "2.dcm").write_text(CANARY)
    result = lumbar("predict", images, "-o", tmp_path / "out", "--no-pictures")
    assert result.exit_code == 3
    assert "rejected [not_dicom] 501/12/2.dcm" in result.stderr
    assert "what to do about not_dicom: " in result.stderr
    assert "CANARY" not in result.output
    assert (tmp_path / "out" / "submission.csv").is_file()


@pytest.mark.usefixtures("stand_in")
def test_of_many_studies_without_images_twenty_are_named_and_the_table_has_all(
    images: Path, tmp_path: Path
) -> None:
    write_table(images, ["501", *(str(number) for number in range(600, 625))])

    result = lumbar("predict", images, "-o", tmp_path / "out", "--no-pictures", "--no-report", "--jobs", "1")

    assert result.exit_code == 3
    assert result.stderr.count("rejected [no_images]") == 20
    refused = tmp_path / "out" / "refused.csv"
    assert f"and 5 more [no_images], named in {refused}" in result.stderr
    assert refused.read_text().count("no_images") == 25


@pytest.mark.usefixtures("stand_in")
def test_predict_on_an_empty_folder_does_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = lumbar("predict", tmp_path / "empty", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "[no_images]" in result.stderr
    assert "what to do: give a folder or zip that holds DICOM files" in result.stderr
    assert not (tmp_path / "out").exists()


def test_predict_without_weights_says_what_to_do(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(cls: type[Pipeline], **_: Path | None) -> Pipeline:
        raise WeightsRejected("no weights: run `make models`")

    monkeypatch.setattr(Pipeline, "load", classmethod(refused))
    result = lumbar("predict", images, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "run `make models`" in result.stderr


@pytest.mark.usefixtures("stand_in")
def test_show_draws_every_series_and_the_study(images: Path, tmp_path: Path) -> None:
    result = lumbar("show", images, "-o", tmp_path / "pictures")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["501.png", "501_11.png", "501_12.png", "501_13.png"]


@pytest.mark.parametrize("truth", ["none", "only"])
def test_a_study_that_cannot_be_drawn_ends_no_other(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: str
) -> None:
    """For a reason that nobody foresaw: it is named without what the failure quotes."""
    first, second = sorted(path.name for path in (phantom_data / "train_images").iterdir())

    def failing(study: Study, *more: Any, **options: Any) -> list[Path]:
        if study.study_id == first:
            raise RuntimeError("CANARY")
        return draw_overlays(study, *more, **options)

    monkeypatch.setattr("pipeline.commands.show.draw_overlays", failing)
    shown = lumbar("show", phantom_data, "-o", tmp_path, "--truth", truth)
    assert shown.exit_code == 3 and "CANARY" not in shown.stderr
    assert f"[internal_failure] {first}: drawing failed (RuntimeError)" in shown.stderr
    assert list(tmp_path.glob(f"{second}_*.png"))


def test_check_lists_quirks_and_rejections(images: Path) -> None:
    (images.parent / "train_images").mkdir()
    write_study(images.parent / "train_images", "501")
    write_labels(images.parent / "train.csv", ["501"])
    result = lumbar("check", images.parent, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["studies_loaded"] == 1
    (images.parent / "train_images" / "501" / "11" / "3.dcm").write_text("no")
    broken = lumbar("check", images.parent)
    assert broken.exit_code == 3
    assert "[not_dicom] 501/11/3.dcm" in broken.stderr and "1 of 1 studies" in broken.stdout
    unread = lumbar("check", images.parent, "--no-images")
    assert unread.exit_code == 0 and "no image was read" in unread.stdout and " of 0" not in unread.stdout


def test_a_folder_that_cannot_be_written_ends_with_1(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        sys, "argv", ["lumbar", "phantom", str(tmp_path / "file" / "below"), "--studies", "1"]
    )
    with pytest.raises(SystemExit) as caught:
        pipeline.cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert "Not a directory" in said and "what to do: a file is in the way" in said


def zipped(images: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(images.parent.rglob("*")):
            if file.is_file() and file != path:
                archive.write(file, file.relative_to(images.parent))
    return path


@pytest.mark.usefixtures("stand_in")
def test_a_zip_is_graded_as_its_folder_is_and_its_run_goes_on(images: Path, tmp_path: Path) -> None:
    archive = zipped(images, tmp_path / "study.zip")
    folder = json.loads(lumbar("predict", images, "-o", tmp_path / "a", "--no-pictures", "--json").stdout)
    packed = json.loads(lumbar("predict", archive, "-o", tmp_path / "b", "--no-pictures", "--json").stdout)
    assert packed["studies"] == folder["studies"] == 1
    for name in ("submission.csv", "predictions.json", "reports/501/report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = json.loads(lumbar("predict", archive, "-o", tmp_path / "b", "--no-pictures", "--json").stdout)
    assert again["resumed"] == 1


@pytest.mark.usefixtures("stand_in")
def test_members_of_a_zip_that_were_refused_are_listed(images: Path, tmp_path: Path) -> None:
    archive = zipped(images, tmp_path / "study.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("inner.zip", b"PK\x03\x04")
    result = lumbar("predict", archive, "-o", tmp_path / "out", "--no-pictures", "--no-report")
    assert result.exit_code == 3
    assert "rejected [nested_archive] inner.zip" in result.stderr
    (listed,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["rejections"]
    assert (listed["reason"], listed["file"]) == ("nested_archive", "inner.zip")
    assert lumbar("show", archive, "-o", tmp_path / "pictures").exit_code == 3
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    for command in ("predict", "show"):
        refused = lumbar(command, tmp_path / "bad.zip", "-o", tmp_path / "none")
        assert refused.exit_code == 1
        assert "[bad_archive]" in refused.stderr and "make the zip again" in refused.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_says_nothing_but_what_went_wrong_and_verbose_more(
    images: Path, tmp_path: Path, place: str
) -> None:
    def said(option: str, *arguments: object) -> tuple[str, str]:
        first = [option] if place == "before" else []
        last = [option] if place == "after" else []
        result = lumbar(*first, *arguments, *last)
        return result.stdout, result.stderr

    arguments = ("predict", images, "-o", tmp_path / "out", "--no-pictures", "--no-report")
    assert said("--quiet", *arguments) == ("", "")
    assert console.verbosity() is console.Verbosity.NORMAL  # of whatever runs next in this process
    assert "model stand-in 0" in said("--verbose", *arguments)[1]
    assert "model" not in lumbar(*arguments).stderr
    (images / "501" / "12" / "2.dcm").write_text("no")
    assert "rejected [not_dicom] 501/12/2.dcm" in said("--quiet", *arguments)[1]
    assert json.loads(said("--quiet", *arguments, "--json")[0])["studies"] == 1


def test_a_bar_has_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "_verbosity", console.Verbosity.NORMAL)
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=120))
    with console.progress_of_parts("studies", 2) as at:
        for share in (0.5, 1.0, 1.5):
            time.sleep(0.02)
            at(share, "7: \x1b[2Jgrading")
    assert re.search(r"studies 7: \?\[2Jgrading .*1/2.*left .*\d:\d\d:\d\d", screen.getvalue())
    assert "\x1b[2J" not in screen.getvalue()


def test_show_draws_annotations_without_loading_models(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(cls: type[Pipeline], **_: Path | None) -> Pipeline:
        raise AssertionError("models were loaded")

    monkeypatch.setattr(Pipeline, "load", classmethod(never))
    study = sorted((phantom_data / "train_images").iterdir())[0]
    result = lumbar("show", study, "-o", tmp_path / "pictures", "--truth", "only")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "pictures").glob(f"{study.name}_*.png"))) == 3
    assert (tmp_path / "pictures" / f"{study.name}.png").is_file()


def test_show_draws_several_studies_of_one_data_set(phantom_data: Path, tmp_path: Path) -> None:
    one, two = sorted((phantom_data / "train_images").iterdir())[:2]
    other = tmp_path / "other" / "train_images"
    shutil.copytree(one, other / "77")
    shutil.copyfile(
        phantom_data / "train_label_coordinates.csv", other.parent / "train_label_coordinates.csv"
    )
    result = lumbar("show", one, two, "-o", tmp_path / "pictures", "--truth", "only")
    assert result.exit_code == 0, result.output
    assert {f"{one.name}.png", f"{two.name}.png"} <= {path.name for path in (tmp_path / "pictures").iterdir()}
    result = lumbar("show", one, other / "77", "-o", tmp_path / "pictures", "--truth", "only")
    assert result.exit_code == 1 and "must be of one data set" in result.stderr
    assert lumbar("show", "-o", tmp_path / "pictures").exit_code == 2


def test_show_without_annotations_says_what_to_do(images: Path, tmp_path: Path) -> None:
    result = lumbar("show", images, "-o", tmp_path / "pictures", "--truth", "only")
    assert result.exit_code == 1
    assert "train_label_coordinates.csv was found neither in 'test_images'" in result.stderr
    assert "what to do" in result.stderr


def test_app_on_a_port_in_use_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = lumbar("app", "--port", taken.getsockname()[1], "--no-browser")
    assert result.exit_code == 1
    assert "choose another with --port" in result.stderr


def test_annotations_go_out_and_come_back(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", studies=1, seed=5)
    out, table = tmp_path / "out", tmp_path / "corrected.csv"
    exported = lumbar("annotations", "export", tmp_path / "data", "-o", out, "--json")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["points"] == 25
    for kind in ("coco", "yolo"):
        assert lumbar("annotations", "import", out, "-o", table, "--format", kind).exit_code == 0
        assert len(table.read_text().splitlines()) == 26
    (out / "annotations" / "person_keypoints_train.json").write_text("{}")
    refused = lumbar("annotations", "import", out, "-o", tmp_path / "none.csv")
    assert refused.exit_code == 1 and "not a COCO keypoint file" in refused.stderr
    assert not (tmp_path / "none.csv").exists()
    no_table = lumbar("annotations", "export", tmp_path / "data" / "train_images", "-o", out)
    assert no_table.exit_code == 1 and "--points" in no_table.stderr


def test_no_command_has_an_option_that_every_command_takes() -> None:
    """``--quiet`` is taken before a command sees its arguments: an option of that name would get nothing."""
    group = typer.main.get_command(app)
    taken = {"--quiet", "--verbose"}
    waiting, seen = [("lumbar", group)], 0
    while waiting:
        name, command = waiting.pop()
        waiting += [(f"{name} {key}", item) for key, item in getattr(command, "commands", {}).items()]
        for parameter in command.params:
            assert not taken & set(parameter.opts), f"{name} has {parameter.opts}"
            seen += 1
    assert seen > 80

"""README and the page on training are true: commands run, or at least parse; files and options exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from classifier import BUNDLED_WEIGHTS as GRADERS
from data_prep.base.manifest import Bundle
from data_prep.phantom import write_dataset
from detector import BUNDLED_WEIGHTS as DETECTORS
from pipeline.cli import app
from pipeline.grade import Pipeline

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = README + (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
# Run for real on a synthetic data set; what trains takes hours and what serves does not end: parsed.
RUN = ("predict", "show", "check", "phantom", "score", "detector predict")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every line of every shell block, joined where it goes on."""
    return [
        line.strip()
        for block in blocks("sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


def lumbar_commands() -> list[str]:
    return [line.split("lumbar ", 1)[1] for line in commands() if re.match(r"\S*lumbar ", line)]


def click_commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():
        full = f"{path} {name}".strip()
        yield full, command
        if hasattr(command, "commands"):
            yield from click_commands(command, full)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What README's placeholders stand for: a synthetic data set, and folders that training would make."""
    folder = tmp_path_factory.mktemp("readme")
    data = folder / "data"
    write_dataset(data, studies=1, seed=200_420, size="small")  # with a moderate or severe grade
    (study,) = (data / "train_images").iterdir()
    for name, bundled in (("detector", DETECTORS), ("graders", GRADERS)):
        shutil.copytree(bundled[Bundle.OPEN], folder / "runs" / "rsna" / "weights" / name)
    return {"INPUT": str(study), "DATA": str(data), "OUT": str(folder / "out"), "runs/": f"{folder}/runs/"}


def filled(command: str, places: dict[str, str]) -> list[str]:
    words = []
    for word in shlex.split(command):
        name = next(
            (name for name in places if word == name or (name == "runs/" and word.startswith(name))), ""
        )
        words.append(word.replace(name, places[name], 1) if name else word)
    return words


def test_every_shell_line_is_one_that_is_tested() -> None:
    assert len(commands()) >= 10
    for line in commands():
        assert re.match(r"(make|\.venv/bin/lumbar) ", line), line
    assert "```\n" not in re.sub(r"^```\w+\n.*?^```\n", "", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", lumbar_commands())
def test_every_lumbar_command_parses_or_runs(
    command: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = filled(command, places)
    own_weights = any(word.endswith("-weights") for word in words)
    if command.startswith(RUN) and not own_weights:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return
    # The name as far as commands go, then its own parser: unknown options and missing arguments fail.
    known = dict(click_commands())
    name = next(name for name in sorted(known, key=len, reverse=True) if f"{command} ".startswith(f"{name} "))
    assert not hasattr(known[name], "commands"), f"{command} is not a whole command"
    known[name].make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_every_make_target_exists(line: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *shlex.split(line)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_python_of_readme_runs(places: dict[str, str], bundled: Pipeline) -> None:
    (code,) = blocks("python")
    values: dict[str, Any] = {}
    exec(code.replace('"INPUT"', repr(places["INPUT"])), values)
    assert len(values["predictions"][0].grades) == 25


@pytest.fixture(scope="module")
def bundled() -> Pipeline:
    return Pipeline.load()


@pytest.fixture(autouse=True)
def loaded_once(bundled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "load", classmethod(lambda cls, **_: bundled))


def test_commands_and_options_that_are_mentioned_exist() -> None:
    known = dict(click_commands())
    options = {option for command in known.values() for p in command.params for option in p.opts}
    options |= {option for command in known.values() for p in command.params for option in p.secondary_opts}
    options |= {"--help", "--quiet", "--verbose"}
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL))
    for code in inline:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code):
            assert option in options, code
        if code.startswith("lumbar "):
            words = code.split()[1:]
            assert words[0] in known or " ".join(words[:2]) in known, code


def test_every_source_that_a_bundle_learned_from_is_credited() -> None:
    credit = README.partition("## Licence and credit")[2]
    told = [
        json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["learned_from"]
        for folder in (*GRADERS.values(), *DETECTORS.values())
    ]
    for source in ("LumbarDISC", "SPIDER", "Sudirman", "synthetic spines"):
        assert any(source in learned_from for learned_from in told), "this test knows the sources"
        assert source in credit
    assert "non-commercial research and education" in credit


def test_every_file_that_is_linked_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).exists(), link
    assert (ROOT / "docs" / "demo.png").stat().st_size < 500_000


def test_a_zip_is_input_too_and_the_outputs_are_called_what_readme_says(
    places: dict[str, str], tmp_path: Path
) -> None:
    study, out = Path(places["INPUT"]), tmp_path / "out"
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in study.rglob("*.dcm"):
            archive.write(path, path.relative_to(study.parent))
    asked = ["--sr", "--sc", "--bids", "--gsps", "--kos"]
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "study.zip"), "-o", str(out), *asked])
    assert result.exit_code == 0, result.output
    table = TEXT.split("`OUT` then holds")[1].split("\n\n")[1]
    cells = [row.split("|")[1] for row in table.splitlines()]
    named = {re.split(r"[/…]", name)[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert named == {path.name for path in out.iterdir()}
    assert (out / "reports" / study.name / "report.html").is_file()

"""The house: which room may import which, no circle among rooms or modules, and typer at the door alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_prep", "detector", "classifier", "pipeline")

# Folder → folders of the same package that it may import. Modules beside the folders are rooms of their own:
# for them, and for everything together, the rule is that there is no circle.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    room: frozenset(others.split())
    for room, others in {
        "data_prep.base": "",
        "data_prep.phantom": "data_prep.base",
        "data_prep.read": "data_prep.base",
        "data_prep.rsna": "data_prep.base data_prep.read",
        "data_prep.exchange": "data_prep.base data_prep.read data_prep.rsna",
        "detector.look": "",
        "detector.spine": "detector.look",
        "detector.learn": "detector.look detector.spine",
        "classifier.learn": "classifier.judge",
        "classifier.judge": "",
        "classifier.measure": "",
        "pipeline.results": "",
        "pipeline.results.pictures": "pipeline.results",
        "pipeline.results.report": "pipeline.results pipeline.results.pictures",
        "pipeline.results.dicom": "pipeline.results pipeline.results.pictures",
        "pipeline.batch": "pipeline.results pipeline.results.report pipeline.results.dicom",
        "pipeline.app": "pipeline.batch pipeline.results pipeline.results.report",
        "pipeline.service": "pipeline.results.dicom",
        "pipeline.export": "",
        "pipeline.training": "pipeline.results pipeline.export",
    }.items()
}
# The command line, and what runs it in a container, see everything.
DOORS = frozenset({"pipeline.commands", "pipeline.container"})


@cache
def modules() -> Mapping[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names of modules that are imported, wherever the import stands; those for type checks alone are not."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (
                name if (name := f"{module}.{alias.name}") in modules() else module for alias in node.names
            )
        else:
            yield from imported(ast.iter_child_nodes(node))


@cache
def arrows() -> Mapping[str, frozenset[str]]:
    """Module → modules of the project that it imports.

    A package's own ``__init__`` may hand out lazily what lies in it, so it counts as importing nothing.
    """
    found = {}
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {item for item in imported([tree]) if item in modules() and item != name}
        found[name] = frozenset() if name in PACKAGES else frozenset(names)
    return found


def room_of(module: str) -> str:
    """The folder of a module; a module beside the folders is a room of its own."""
    if modules()[module].name == "__init__.py" or module.count(".") == 1:
        return module
    return module.rpartition(".")[0]


@cache
def rooms() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for module, others in arrows().items():
        found.setdefault(room_of(module), set()).update(map(room_of, others))
    return {room: frozenset(others - {room}) for room, others in found.items()}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_among_modules() -> None:
    assert circle(arrows()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_among_rooms(package: str) -> None:
    inside = {
        room: [other for other in others if other.split(".")[0] == package]
        for room, others in rooms().items()
        if room.split(".")[0] == package
    }
    assert circle(inside) == []


def test_every_folder_imports_only_what_it_may() -> None:
    folders = {room for room in rooms() if "." in room and modules()[room].name == "__init__.py"}
    assert folders == {*MAY_IMPORT, *DOORS}
    for room in sorted(MAY_IMPORT):
        package = room.split(".")[0]
        mine = {other for other in rooms()[room] & folders if other.split(".")[0] == package}
        assert mine <= MAY_IMPORT[room], f"{room} imports {sorted(mine - MAY_IMPORT[room])}"


def test_only_commands_know_typer() -> None:
    for name, path in modules().items():
        uses = "typer" in {item.split(".")[0] for item in imported([ast.parse(path.read_text())])}
        assert not uses or name == "pipeline.cli" or room_of(name) in DOORS, f"{name} imports typer"


def test_a_planted_circle_is_found() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})

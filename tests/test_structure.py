"""The library's packages import each other only in the order that its docstring states."""

import ast
import re
from pathlib import Path

import pytest

import headwater

LIBRARY = Path(headwater.__file__).parent
ROWS = [row.split() for row in re.findall(r"^    (\S+(?: \S+)*)  ", headwater.__doc__, re.MULTILINE)]
HEIGHT = {room: height for height, row in enumerate(ROWS) for room in row}
MODULES = sorted(set(LIBRARY.rglob("*.py")) - {LIBRARY / "__init__.py"})


def room_of(module):
    return module.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(source):
    """The packages that a module imports: at the top, inside functions, or for type checking only."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith("headwater."))


def test_the_library_names_all_its_rooms():
    assert {room_of(module) for module in MODULES} == set(HEIGHT)


def test_an_import_is_found_wherever_it_stands():
    source = (
        "import headwater.spark\ndef f():\n    from headwater import clock\nfrom headwater.tables.log import find\n"
    )
    assert sorted(imports(source)) == ["clock", "spark", "tables"]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(LIBRARY)))
def test_imports_point_down(module):
    rooms = set(imports(module.read_text())) - {room_of(module), "__version__"}
    assert [room for room in rooms if HEIGHT[room] > HEIGHT[room_of(module)]] == []


def test_no_two_rooms_of_a_row_import_each_other():
    known = {room: set() for room in HEIGHT}
    for module in MODULES:
        known[room_of(module)] |= set(imports(module.read_text()))
    both = [(a, b) for row in ROWS for a in row for b in row if a < b and b in known[a] and a in known[b]]
    assert both == []

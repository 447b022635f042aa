"""The library's packages import each other only in the order that its docstring states."""

import ast
import re
from pathlib import Path

import pytest

import headwater

LIBRARY = Path(headwater.__file__).parent
ROWS = [row.split() for row in re.findall(r"^    (\S+(?: \S+)*)  ", headwater.__doc__, re.MULTILINE)]
HEIGHT = {package: height for height, row in enumerate(ROWS) for package in row}
MODULES = sorted(set(LIBRARY.rglob("*.py")) - {LIBRARY / "__init__.py"})


def package_of(module):
    return module.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(source):
    """The packages that a module imports: at the top, inside functions, or for type checking only."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith("headwater."))


def test_the_docstring_of_the_library_names_all_its_packages():
    assert {package_of(module) for module in MODULES} == set(HEIGHT)


def test_imports_are_found_at_any_position_in_a_module():
    source = (
        "import headwater.spark\ndef f():\n    from headwater import clock\nfrom headwater.tables.log import find\n"
    )
    assert sorted(imports(source)) == ["clock", "spark", "tables"]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(LIBRARY)))
def test_modules_import_only_packages_of_their_own_row_or_the_rows_above(module):
    packages = set(imports(module.read_text())) - {package_of(module), "__version__"}
    assert [package for package in packages if HEIGHT[package] > HEIGHT[package_of(module)]] == []


def test_no_two_packages_of_a_row_import_each_other():
    known = {package: set() for package in HEIGHT}
    for module in MODULES:
        known[package_of(module)] |= set(imports(module.read_text()))
    both = [(a, b) for row in ROWS for a in row for b in row if a < b and b in known[a] and a in known[b]]
    assert both == []

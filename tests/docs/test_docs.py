"""Documents name only what exists: paths, make targets, and queries that run."""

import re
from pathlib import Path

import pytest

from headwater import schemas
from headwater.config import Config, load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KEY = re.compile(rf"`((?:{'|'.join(Config.model_fields)})(?:\.[a-z_]+)+)`")
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/tables.md").read_text(), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_targets_that_a_page_names_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= targets
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:jobs|lib|conf|docs|airflow_dags|demo|tests|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_config_keys_that_a_page_names_exist(page):
    text = page.read_text()
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
        assert (ROOT / path).exists() or (ROOT / "lib/headwater" / path).exists(), path
    for key in KEY.findall(text):
        assert key.endswith(".py") or is_key(key) or is_column(key), key


def is_key(name):
    section = Config
    for part in name.split("."):
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return False
        section = field.annotation
    return True


def is_column(name):
    table, _, column = name.partition(".")
    return column in schemas.TABLES.get(table, ())


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_tables_page_runs(query, spark, warehouse):
    for table in schemas.TABLES:
        if re.search(rf"\b{table}\b", query):
            warehouse.create(table)
            warehouse.read(table).createOrReplaceTempView(table)
    answer = spark.sql(query).toPandas()
    assert answer.columns.is_unique
    assert len(answer.columns)


def test_the_tables_page_names_every_table():
    text = (ROOT / "docs/tables.md").read_text()
    assert [table for table in schemas.TABLES if f"| `{table}` |" not in text] == []


@pytest.mark.parametrize(
    ("page", "folder"),
    [
        ("docs/architecture.md", "lib/headwater"),
        ("docs/models.md", "lib/headwater/models"),
        ("benchmarks/README.md", "benchmarks"),
    ],
)
def test_a_page_names_every_module_of_the_folder_that_it_describes(page, folder):
    modules = {
        path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    named = set(re.findall(r"`(\w+)(?:\.py)?`", (ROOT / page).read_text()))
    assert modules - {"__init__"} <= named


def test_the_config_shown_in_the_readme_is_valid(tmp_path):
    [shown] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "site.yaml").write_text(shown)
    assert [source.format for source in load([tmp_path / "site.yaml"]).ingest.sources] == ["csv", "catalog"]

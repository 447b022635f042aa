"""Documents name only what exists: paths, make targets, and queries that run."""

import re
from pathlib import Path

import pytest

from headwater import schemas

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUERIES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/tables.md").read_text(), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_targets_that_a_page_names_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= targets
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:jobs|lib|conf|docs|airflow_dags|demo|tests|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_tables_page_runs(query, spark, warehouse):
    for table in schemas.TABLES:
        if re.search(rf"\b{table}\b", query):
            warehouse.create(table)
            warehouse.read(table).createOrReplaceTempView(table)
    spark.sql(query).collect()


def test_the_tables_page_names_every_table():
    text = (ROOT / "docs/tables.md").read_text()
    assert [table for table in schemas.TABLES if f"| `{table}` |" not in text] == []

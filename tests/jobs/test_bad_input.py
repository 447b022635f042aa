"""One clear line, the right exit code, and tables as they were."""

import pytest
import shop


def refused(site, job, *args, code, line, start="start"):
    ended = getattr(site, start)(job, *args)
    assert ended.returncode == code, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{job}: "), ended.stderr
    assert line in last, ended.stderr
    assert "Traceback" not in ended.stderr
    return last


@pytest.mark.parametrize(
    ("job", "args", "line"),
    [
        ("build_sequences", ["--config", "missing.yaml"], "missing.yaml cannot be read"),
        ("build_sequences", ["--set", "no.such.key=1"], "no is not a known config key"),
        ("train_model", ["--set", "train.epochs=-1"], "train.epochs"),
        ("score_topn", ["--mode", "sideways"], "sideways"),
        ("ingest_events", ["--nope"], "No such option: --nope"),
        (
            "evaluate_model",
            ["--alias", "newest"],
            "'newest' is not one of 'champion', 'challenger', 'previous_champion'",
        ),
        ("recommend", ["--history", "look:A"], "'look:A' is not TYPE:ITEM"),
    ],
)
def test_a_bad_flag_or_key_is_exit_code_two(site, job, args, line):
    refused(site(shop.CONFIG), job, *args, code=2, line=line)


def test_an_empty_landing_folder_is_fine_and_nothing_follows_from_it(site):
    empty = site(shop.CONFIG)
    assert empty.run("ingest_events")["rows_in"] == 0
    assert empty.run("build_sequences")["users_changed"] == 0
    refused(empty, "score_topn", "--mode", "full", code=1, line="champion", start="run_here")
    refused(empty, "train_model", code=1, line="sequence", start="run_here")


def test_a_landing_folder_that_is_not_there_is_named(site):
    refused(
        site(shop.CONFIG), "ingest_events", "--set", "paths.landing=/no/such/folder", code=2, line="/no/such/folder"
    )


def test_a_file_that_does_not_fit_its_source_is_exit_code_two_without_a_closing_line(site):
    shop_site = site(shop.CONFIG)
    (shop_site.landing / "pos").mkdir()
    (shop_site.landing / "pos/x.csv").write_text("customer,article,at,quantity\nu1,i1,2024-05-01,1\n")
    ended = shop_site.run_here("ingest_events")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1] == (
        "ingest_events: pos/x.csv has no column 'sku', which ingest.sources names for item_id; the columns are 'customer', "
        "'article', 'at', 'quantity' (left alone; all other files were ingested)"
    )


def test_a_job_before_its_inputs_names_the_job_to_run(site):
    refused(site(shop.CONFIG), "build_sequences", code=1, line="run jobs/ingest_events.py first")

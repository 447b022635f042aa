"""Configuration: one source of defaults, and one clear line for each mistake."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from headwater import config
from headwater.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


def test_the_documented_defaults_are_the_real_ones():
    documented = yaml.safe_load((ROOT / "conf/default.yaml").read_text())
    assert config.load([ROOT / "conf/default.yaml"]) == config.Config()
    assert {key: set(value) for key, value in documented.items()} == {
        key: set(value) for key, value in config.Config().dump().items()
    }


@pytest.mark.parametrize("file", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_config_file_in_conf_is_valid(file):
    assert config.load([file]).ingest.sources


@pytest.mark.parametrize("given", ["2020-02-01", '"2020-02-01"', "2020-02-01T00:00:00Z", "2020-02-01 01:00:00+01:00"])
def test_a_date_can_be_given_with_or_without_quotes(given):
    assert config.load([], [f"ingest.earliest={given}"]).ingest.earliest == datetime(2020, 2, 1, tzinfo=UTC)


def test_lists_may_be_kept_exactly_as_long_as_the_feedback_window():
    loaded = config.load([], ["maintain.keep_days={topn_history: 2.5, quarantine: 30}", "feedback.window_hours=60"])
    assert loaded.maintain.keep_days == config.KeepDays(topn_history=2.5, quarantine=30)


def test_settings_of_spark_need_no_quotes():
    loaded = config.load([], ["spark={spark.sql.adaptive.enabled: true, spark.sql.shuffle.partitions: 2, a: 0.6}"])
    assert loaded.spark == {"spark.sql.adaptive.enabled": "true", "spark.sql.shuffle.partitions": "2", "a": "0.6"}


def test_later_files_override_earlier_ones_and_set_overrides_files(tmp_path):
    (tmp_path / "a.yaml").write_text("topn: {n: 3}\ntrain: {epochs: 7}\n")
    (tmp_path / "b.yaml").write_text("topn: {n: 4}\n")
    loaded = config.load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["train.seed=5", "topn.exclude_seen=false"])
    assert (loaded.topn.n, loaded.train.epochs, loaded.train.seed, loaded.topn.exclude_seen) == (4, 7, 5, False)


@pytest.mark.parametrize(
    ("asked", "n_items", "kind"),
    [
        ("auto", 20_000, "softmax"),
        ("auto", 20_001, "sampled_softmax"),
        ("softmax", 1_000_000, "softmax"),
        ("gbce", 10, "gbce"),
    ],
)
def test_the_default_loss_is_sampled_where_the_catalogue_is_large(asked, n_items, kind):
    loss = config.Loss(kind=asked, negatives=7).of_catalogue(n_items)
    assert (loss.kind, loss.negatives) == (kind, 7)


@pytest.mark.parametrize(
    ("asked", "kind", "n_items", "rows"),
    [
        ("auto", "gbce", 200_000, True),
        ("auto", "gbce", 199_999, False),
        ("auto", "softmax", 1_000_000, False),
        ("auto", "auto", 1_000_000, True),
        (True, "bpr", 10, True),
        (False, "bpr", 1_000_000, False),
    ],
)
def test_a_sampled_loss_over_many_items_uses_sparse_item_updates(asked, kind, n_items, rows):
    assert config.Train(sparse_items=asked, loss=config.Loss(kind=kind)).moves_rows(n_items) is rows


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["no.such.key=1"], "no is not a known config key"),
        (["train.epoch=1"], "train.epoch is not a known config key; did you mean train.epochs?"),
        (
            ["topn.sections=[{kind: new, dayz: 3}]"],
            "topn.sections.0.dayz is not a known config key; did you mean topn.sections.0.days?",
        ),
        (
            ["topn.strategies=[{name: a, when: {max_event: 5}}]"],
            "topn.strategies.0.when.max_event is not a known config key; did you mean topn.strategies.0.when.max_events?",
        ),
        (
            ["topn.sections=[{kind: new, count: 2}]"],
            "topn.sections.0: there is one list of kind new, so its count is 1",
        ),
        (
            ["topn.sections=[{kind: because, days: 3}]"],
            "topn.sections.0: days has no effect with kind because; only new reads it",
        ),
        (["topn.deny_categories=Design"], "topn.deny_categories must be a list (got 'Design')"),
        (["train.epochs=-1"], "train.epochs: Input should be greater than 0"),
        (["train.epochs=many"], "train.epochs: Input should be a valid integer"),
        (["model.kind=magic"], "model.kind: 'magic' is not one of sasrec, relative, bert4rec, gru, lstm"),
        (["topn"], "--set 'topn' must have the form dotted.key=value"),
        (["topn={n: 3, n: 4}"], "--set topn: '{n: 3, n: 4}' is not a YAML value"),
        (["topn=3"], "topn must hold keys with values (got 3)"),
        (["spark=3"], "spark must hold keys with values (got 3)"),
        (["topn.exclude=[{event_types: [purchase]}]"], "exclude has no effect with exclude_seen"),
        (["topn={exclude_seen: false, exclude: [{event_types: [search]}]}"], "topn.exclude.0.event_types.0"),
        (["topn.explore.share=0.5"], "topn.explore.share: Input should be less than or equal to 0.3"),
        (["topn.strategies=[{name: a, when: {}}, {name: a, when: {}}]"], "two groups are called 'a'"),
        (
            ["topn={index: faiss, strategies: [{name: a, when: {}, deny: [i1]}]}"],
            "index faiss holds one catalogue for all users",
        ),
        (
            ["topn.strategies=[{name: a, when: {min_events: 6, max_events: 5}}]"],
            "topn.strategies.0.when: no user has min_events 6 or more and max_events 5 or fewer",
        ),
        (
            ["sequence.max_length=20", "topn.strategies=[{name: a, when: {min_events: 21}}]"],
            "topn.strategies.0.when.min_events is 21, but a sequence holds the last 20 events",
        ),
        (
            ["sequence.max_length=20", "model.max_length=30"],
            "model.max_length is 30, but a sequence holds the last 20 events",
        ),
        (["topn.strategies=[{name: a, when: {}, n: 5}]"], "topn.strategies.0.n is not a known config key"),
        (["topn.categories=['']"], "topn.categories.0: String should have at least 1 character"),
        (["topn.n=!!int x"], "--set topn.n: '!!int x' is not a YAML value"),
        (["train.seed=-1"], "train.seed: Input should be greater than or equal to 0"),
        (["feedback.rewards={view: -1}"], "feedback.rewards.view: Input should be greater than or equal to 0"),
        (["train.sparse_items=true"], "sparse_items needs a sampled loss"),
        (
            ["train.loss.kind=hinge"],
            "train.loss.kind: Input should be 'auto', 'softmax', 'sampled_softmax', 'gbce' or 'bpr'",
        ),
        (["train.loss.source=rare"], "train.loss.source: Input should be 'uniform', 'popular' or 'batch'"),
        (["train.loss.negatives=0"], "train.loss.negatives: Input should be greater than 0"),
        (["train.loss.calibration=1.5"], "train.loss.calibration: Input should be less than or equal to 1"),
        (["train.loss.correction=perhaps"], "train.loss.correction: Input should be a valid boolean"),
        (["train.loss.margin=1"], "train.loss.margin is not a known config key"),
        (["train.loss=softmax"], "train.loss must hold keys with values (got 'softmax')"),
        (["train.schedule=linear"], "train.schedule: Input should be 'constant' or 'cosine'"),
        (["train.warmup=1"], "train.warmup: Input should be less than 1"),
        (["train.targets={view: 0, search: 0, click: 0, add_to_cart: 0, purchase: 0, rating: 0}"], "every weight is 0"),
        (["train.targets.impression=1"], "train.targets.impression is not a known config key"),
        (["train.learning_rate=.nan"], "train.learning_rate: Input should be a finite number"),
        (["ingest.earliest=2020-13-45"], "ingest.earliest: not an ISO date such as 1995-01-01 (got '2020-13-45')"),
        (["ingest.earliest=12"], "ingest.earliest: not an ISO date"),
        (
            ["ingest.sources=[{format: combined_log, glob: x, time_zone: Asia/Tokyo, fields: {user_id: u}}]"],
            "fields and time_zone cannot be used with format combined_log",
        ),
        (["ingest.sources=[{format: json, glob: x, topic: t}]"], "topic cannot be used with format json"),
        (["ingest.future_hours=.inf"], "ingest.future_hours: Input should be a finite number"),
        (["train.targets.view=-1"], "train.targets.view: Input should be greater than or equal to 0"),
        (["train.pretrain_epochs=-1"], "train.pretrain_epochs: Input should be greater than or equal to 0"),
        (
            ["train.start_from=3"],
            "train.start_from transfers only the meaning of features; name some in model.features",
        ),
        (["train.start_from=3", "model={features: [title], input_scale: 2}"], "takes model.input_scale from that"),
        (
            ["evaluate={test_fraction: 0.5, validation_fraction: 0.5}"],
            "evaluate: test_fraction and validation_fraction",
        ),
        (["evaluate.targets=[]"], "evaluate.targets: Tuple should have at least 1 item"),
        (["evaluate.targets=[impression]"], "evaluate.targets.0"),
        (["topn.max_repeats=3"], "max_repeats has no effect with exclude_seen"),
        (["model.context=[gap, gap]"], "model.context: a name appears twice"),
        (["model={hybrid: true, blend: []}"], "hybrid needs at least one part in blend"),
        (["model.features=[vector]"], "vectors must name the Parquet file"),
        (["model.heads=3"], "dim 64 must be a multiple of heads 3"),
        (["maintain.keep_days.topn=30"], "maintain.keep_days.topn is not a known config key"),
        (["maintain.keep_days.quarantine=0"], "maintain.keep_days.quarantine: Input should be greater than 0"),
        (["maintain.keep_days.events=1e9"], "maintain.keep_days.events: Input should be less than or equal to 36500"),
        (
            ["topn.popular_half_life_days=100000"],
            "topn.popular_half_life_days: Input should be less than or equal to 36500",
        ),
        (["evaluate.recent_days=1000000"], "evaluate.recent_days: Input should be less than or equal to 36500"),
        (["feedback.window_hours=1e8"], "feedback.window_hours: Input should be less than or equal to 876000"),
        (["feedback.window_hours=0"], "feedback.window_hours: Input should be greater than 0"),
        (["ingest.future_hours=1e8"], "ingest.future_hours: Input should be less than or equal to 876000"),
        (["maintain.retention_hours=1e8"], "maintain.retention_hours: Input should be less than or equal to 876000"),
        (
            ["maintain.keep_days.topn_history=2", "feedback.window_hours=60"],
            "maintain.keep_days.topn_history is 2 days, but feedback.window_hours lets an action answer a list for 2.5",
        ),
        (["ingest.url_rules=[{event_type: view, path: '('}]"], "is not a regular expression"),
        (["ingest.url_rules=[{event_type: view, path: '^/p'}]"], "a view needs an item"),
        (["ingest.sources=[{format: csv, glob: '../x'}]"], "must stay inside paths.landing"),
        (["ingest.sources=[{format: csv, glob: x, fields: {item: a}}]"], "'item' is not a known field"),
        (["ingest.sources=[{format: csv, glob: x, time_zone: Mars}]"], "time zone 'Mars' is unknown"),
        (
            ["ingest.sources=[{format: csv, glob: x, delimiter: '\"'}]"],
            "ingest.sources.0.delimiter: '\"' cannot separate",
        ),
        (
            ["ingest.sources=[{format: csv, glob: x, delimiter: '\\'}]"],
            "ingest.sources.0.delimiter: '\\\\' cannot separate",
        ),
        (
            ['ingest.sources=[{format: csv, glob: x, delimiter: "\\n"}]'],
            "ingest.sources.0.delimiter: '\\n' cannot separate",
        ),
        (
            ['ingest.sources=[{format: csv, glob: x, delimiter: "\\r"}]'],
            "ingest.sources.0.delimiter: '\\r' cannot separate",
        ),
        (
            ["ingest.sources=[{format: csv, glob: x, header: [a, ' ']}]"],
            "ingest.sources.0.header: column 2 has no name",
        ),
        (
            ["ingest.sources=[{format: csv, glob: x, header: [a, b, a]}]"],
            "ingest.sources.0.header: column 'a' is named twice",
        ),
        (["ingest.sources=[{format: xml, glob: x}]"], "ingest.sources.0.format"),
        (["ingest.sources=[{format: kafka, topic: t}]"], "format kafka needs brokers"),
        (["ingest.sources=[{format: kafka, brokers: b, topic: t, glob: x}]"], "takes a topic, not a glob"),
        (["ingest.sources=[{format: kafka, brokers: b, topic: 'a/b'}]"], "ingest.sources.0.topic"),
        (
            ["ingest.sources=[{format: kafka, brokers: b, topic: t}, {format: kafka, brokers: c, topic: t}]"],
            "topic 't' is read by two sources",
        ),
    ],
)
def test_a_config_error_is_one_line_that_names_the_key(overrides, line):
    with pytest.raises(UsageError) as caught:
        config.load([], overrides)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_store_is_in_the_warehouse_given_as_a_path_or_uri(tmp_path):
    for name in (str(tmp_path), f"file://{tmp_path}"):
        assert config.load([], [f"paths.warehouse={name}"]).tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_warehouse_on_another_file_system_needs_a_tracking_uri():
    with pytest.raises(UsageError, match=r"set mlflow.tracking_uri: paths.warehouse is not a local folder"):
        _ = config.load([], ["paths.warehouse=s3a://bucket/warehouse"]).tracking_uri


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.yaml cannot be read: No such file"):
        config.load([tmp_path / "nowhere.yaml"])
    (tmp_path / "twice.yaml").write_text("topn: {n: 3}\ntrain: {epochs: 7}\ntopn: {candidates: 30}\n")
    with pytest.raises(UsageError, match=r"twice\.yaml is not YAML: line 3: topn appears twice"):
        config.load([tmp_path / "twice.yaml"])
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match=r"list\.yaml must hold a mapping"):
        config.load([tmp_path / "list.yaml"])
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(UsageError, match=r"bad\.yaml is not YAML: line 2: expected ',' or '\]'"):
        config.load([tmp_path / "bad.yaml"])


def test_a_reward_of_its_own_for_one_type_of_event_keeps_the_others():
    rewards = config.load([], ["feedback.rewards.purchase=8", "feedback.rewards.view=0"]).feedback.rewards
    assert rewards == {"view": 0, "click": 1, "add_to_cart": 2, "purchase": 8, "rating": 1}


def test_repeats_are_blended_in_only_if_lists_may_hold_seen_items():
    assert config.load([], []).blended == ()
    hybrid = config.load([], ["model.hybrid=true"])
    assert hybrid.blended == ("transitions", "ease", "recency")
    assert "repeats" in config.load([], ["model.hybrid=true", "topn.exclude_seen=false"]).blended

"""The whole loop on real user behaviour: raw logs become fresh Top-N lists, feedback, and a better model.

    make demo            (or .venv/bin/python demo/run.py)

Writes the traffic of a film site to ``demo-out/landing`` (``movielens`` has the data, ``replay`` the times, ``traffic`` the
files) and runs the jobs on it with the flags that a user would give, in one warm Spark session (``warm``): two nights, two
nearline rounds, one round of feedback, and the report. Ends with a table of measurements; every number comes from the jobs'
closing lines or the tables. ``demo-out`` is recreated each time.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tqdm import tqdm

import movielens
import processes
import replay
import tables
import traffic
from movielens import DemoError
from replay import Shown

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "demo-out"
LANDING, WAREHOUSE, REPORT = OUT / "landing", OUT / "warehouse", OUT / "report.html"
LOG, JOB_OUTPUT = OUT / "jobs.log", OUT / "answer.log"
CONFIG = "conf/demo.yaml"
STEPS = 26
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass
class Demo:
    """One run of the demo: the progress bar, the closing line of each job, and measurements."""

    bar: tqdm
    worker: subprocess.Popen | None = None
    closing_lines: list[tuple[str, dict]] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peak_gib: float = 0.0
    waits: list[float] = field(default_factory=list)
    clicks: dict[str, int] = field(default_factory=dict)

    def say(self, text: str = "") -> None:
        """Print a line above the bar."""
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text)

    def run(self, job: str, *args: str) -> dict:
        """Run one job and show its closing line. Raises DemoError with the job's own error line if it fails."""
        command = [f"jobs/{job}.py", "--config", CONFIG, *args]
        shown = " ".join(["python", *command])
        if not self.bar.disable:
            self.say(f"$ {shown}")
        began = time.monotonic()
        with LOG.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"\n$ {shown}\n")
            log.flush()
            start = log.tell()
            code = self._send(command, job, start, began)
            took = time.monotonic() - began
            out = JOB_OUTPUT.read_text(encoding="utf-8", errors="replace")
            log.write(out)
        if code:
            raise DemoError(f"{_last_line(start, job) or f'{job}: exit code {code}'}  (more in {LOG})")
        closing = _closing_line(out, job)
        self.closing_lines.append((job, closing))
        self.seconds[job].append(took)
        counts = ", ".join(
            f"{k} {_short(v)}" for k, v in closing.items() if k != "job" and not isinstance(v, dict | list)
        )
        number = f"[{len(self.closing_lines):2}/{STEPS}] "
        self.say(f"{number if self.bar.disable else '  '}{job:16} {took:5.1f} s  {counts}")
        self.bar.update()
        return closing

    def stop(self) -> None:
        """End the worker and all its descendants."""
        if self.worker is not None:
            processes.stop(self.worker)

    def _send(self, command: list[str], job: str, start: int, began: float) -> int:
        """Let the worker run one job; returns the job's exit code, or the worker's own if the worker died."""
        if self.worker is None:
            JOB_OUTPUT.write_text("")
            program = [sys.executable, str(Path(__file__).with_name("warm.py")), str(JOB_OUTPUT)]
            with LOG.open("a") as log:
                self.worker = subprocess.Popen(
                    program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                    start_new_session=True,
                )  # fmt: skip
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps(command) + "\n")
        self.worker.stdin.flush()
        self._watch(self.worker, job, start, began)
        line = self.worker.stdout.readline()
        return int(line) if line else self.worker.wait()

    def _watch(self, worker: subprocess.Popen, job: str, start: int, began: float) -> None:
        """Draw a spinner while the worker runs, and a second bar once its output contains ``epoch 3/15: …``."""
        frame, measured = 0, 0.0
        epochs: tqdm | None = None
        with LOG.open(encoding="utf-8", errors="replace") as log, JOB_OUTPUT.open(errors="replace") as outputs:
            log.seek(start)
            while not select.select([worker.stdout], [], [], 0.1)[0]:
                frame += 1
                elapsed = time.monotonic() - began
                if elapsed - measured > 1.0:
                    measured = elapsed
                    self.peak_gib = max(self.peak_gib, processes.memory_gib(worker.pid))
                if self.bar.disable:
                    continue
                self.bar.set_description_str(f"{SPINNER[frame % len(SPINNER)]} {job} {elapsed:4.0f} s")
                for line in (*log, *outputs):
                    epochs = _draw_epochs(epochs, line)
        if epochs is not None:
            epochs.close()


def _draw_epochs(bar: tqdm | None, line: str) -> tqdm | None:
    """The second bar, advanced if the line reports an epoch."""
    found = re.search(r"epoch (\d+)/(\d+)(?:: ([^\"]*))?", line)
    if not found:
        return bar
    if bar is None:
        shape = "  epochs {bar} {n_fmt}/{total_fmt}{postfix}"
        bar = tqdm(total=int(found[2]), position=1, leave=False, bar_format=shape, dynamic_ncols=True)
    bar.n = int(found[1])
    bar.set_postfix_str((found[3] or "").strip()[:60])
    return bar


def _closing_line(out: str, job: str) -> dict:
    lines = out.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        raise DemoError(f"{job} succeeded but printed no closing line; see {LOG}") from None


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _last_line(start: int, job: str) -> str:
    """The line in which a job says why it failed."""
    with LOG.open(encoding="utf-8", errors="replace") as log:
        log.seek(start)
        lines = [line.strip() for line in log if line.strip()]
    own = [line for line in lines if line.startswith(f"{job}: ")]
    return (own or lines or [""])[-1]


def night(demo: Demo) -> None:
    """A full cycle: new files, sequences, a model, its evaluation, the gate, all lists."""
    demo.run("ingest_events")
    demo.run("build_sequences")
    demo.run("train_model")
    demo.run("evaluate_model", "--alias", "challenger")
    demo.run("promote_model")
    demo.run("score_topn", "--mode", "full")


def nearline(demo: Demo) -> None:
    """From new files to new lists, only for the users in those files; records how long each event waited for its list."""
    demo.run("ingest_events")
    demo.run("build_sequences")
    scored = demo.run("score_topn", "--mode", "nearline")
    if scored.get("users_scored"):
        ready = tables.committed_at(WAREHOUSE / "topn")
        lists = tables.read(WAREHOUSE / "topn", ["user_id", "rank", "history_time", "generated_at"])
        newest = max(row["generated_at"] for row in lists)
        fresh = [row for row in lists if row["generated_at"] == newest and row["rank"] == 1]
        demo.waits += [(ready - _utc(row["history_time"])).total_seconds() for row in fresh]


def feedback(demo: Demo, plan: replay.Plan, films: list[movielens.Film]) -> None:
    """Users act on their lists; the model learns from that feedback, and is promoted only if the gate agrees."""
    lists: dict[str, list[Shown]] = defaultdict(list)
    for row in tables.read(WAREHOUSE / "topn", ["user_id", "rank", "item_id", "generated_at"]):
        lists[row["user_id"]].append(Shown(row["rank"], row["item_id"], _utc(row["generated_at"])))
    since = max(place.generated_at for places in lists.values() for place in places)
    actions = replay.act(plan.future, lists, since, _now())
    traffic.write_actions(LANDING, actions, films, "feedback")
    demo.clicks = {
        "real": len(actions.taken), "simulated": len(actions.simulated), "elsewhere": len(actions.elsewhere)
    }  # fmt: skip
    demo.say(
        f"Users acted: {len(actions.taken)} real interactions with a film they were shown, {len(actions.simulated)} "
        f"simulated clicks, {len(actions.elsewhere)} real interactions with other films."
    )
    demo.run("ingest_events")
    demo.run("build_sequences")
    demo.run("collect_feedback")
    tuned = demo.run("finetune_model")
    if tuned.get("status") == "skipped":
        demo.say("Too little feedback to fine-tune; the champion stays.")
        demo.bar.update(2)
    else:
        demo.run("evaluate_model", "--alias", "challenger")
        demo.run("promote_model")
    demo.run("score_topn", "--mode", "full")


def loop(demo: Demo) -> None:
    wheel = movielens.fetch(movielens.cache_folder())
    interactions, films = movielens.read_movielens(wheel)
    plan = replay.plan(interactions, _now())
    demo.say(f"MovieLens-100K: {len(interactions)} interactions, {len(films)} films. Job logs: {LOG}")

    demo.say(f"\nNight 1: {len(plan.history)} old events in one export, {len(plan.first_night)} in days of logs")
    traffic.write_catalogue(LANDING, films)
    traffic.write_history(LANDING, plan.history)
    traffic.write_traffic(LANDING, plan.first_night, films, seed=1)
    night(demo)

    demo.say(f"\nNight 2: {len(plan.second_night)} events of the days since")
    traffic.write_traffic(LANDING, plan.second_night, films, seed=2)
    night(demo)

    for number, interactions in enumerate(plan.rounds, 1):
        now = _now()
        users = len({one.user for one in interactions})
        demo.say(f"\nNearline {number}: {len(interactions)} events of {users} users within the last minute")
        live = replay.stamp(interactions, now - replay.QUIET_PERIOD / 2, now, seed=number)
        traffic.write_live(LANDING, live, films, f"round-{number}")
        nearline(demo)

    demo.say("\nFeedback")
    feedback(demo, plan, films)
    demo.say("\nReport")
    demo.run("build_report", "--output", str(REPORT.relative_to(ROOT)))


def summary(demo: Demo, total: float) -> list[str]:
    """The lines of the closing table. A number that no job reported is left out, never estimated."""
    lines = ["", "What went in"]
    ingested: Counter[str] = Counter()
    for job, closing in demo.closing_lines:
        if job == "ingest_events":
            ingested.update({key: value for key, value in closing.items() if isinstance(value, int)})
    reasons = Counter(row["reason"] for row in tables.read(WAREHOUSE / "quarantine", ["reason"]))
    for key, words in (
        ("rows_in", "lines of events"), ("rows_events", "became events"), ("rows_duplicate", "duplicates"),
        ("rows_ignored", "requests that are not actions"), ("rows_quarantined", "quarantined"),
        ("rows_catalog", "catalogue rows"),
    ):  # fmt: skip
        lines.append(f"  {ingested[key]:>8,}  {words}")
    lines.append("            " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))

    lists = tables.read(WAREHOUSE / "topn", ["user_id", "strategy"])
    users = {row["user_id"] for row in lists}
    strategies = Counter(row["strategy"] for row in lists)
    lines += ["What came out", f"  {len(users):>8,}  users with a list ({len(lists):,} places)"]
    lines.append("            places by strategy: " + ", ".join(f"{k} {v:,}" for k, v in strategies.most_common()))
    nearline_runs = [closing for job, closing in demo.closing_lines if job == "score_topn"][2:4]
    for number, closing in enumerate(nearline_runs, 1):
        scored, changed = closing.get("users_scored"), closing.get("users_changed")
        lines.append(f"  {scored:>8,}  users scored again in nearline round {number}, {changed:,} lists changed")
    collected = [closing for job, closing in demo.closing_lines if job == "collect_feedback"]
    if collected:
        rows = tables.read(WAREHOUSE / "feedback", ["event_id"])
        lines.append(
            f"  {len(rows):>8,}  rows of feedback (users took {demo.clicks['real']} shown films for real, "
            f"{demo.clicks['simulated']} clicks are simulated)"
        )

    tuned = {closing.get("model_version", 0) for job, closing in demo.closing_lines if job == "finetune_model"}
    lines += ["Quality: NDCG@10, temporal split, full catalogue, held-out test events", *quality(tuned)]
    if demo.waits:
        lines.append("Freshness, from a user's last event to the first list that reflects it (nearline)")
        lines.append(f"  {median(demo.waits):7.1f} s median, {max(demo.waits):.1f} s at most, {len(demo.waits)} lists")
    lines.append("Seconds per step")
    for job, took in demo.seconds.items():
        lines.append(f"  {job:16} {sum(took):6.1f}  = " + " + ".join(f"{one:.1f}" for one in took))
    lines.append(f"  {'all':16} {total:6.1f}  peak memory {demo.peak_gib:.1f} GiB")
    lines += ["", f"Open {REPORT.relative_to(ROOT)} in a browser; the tables are under {WAREHOUSE.relative_to(ROOT)}/."]
    return lines


def quality(tuned: set[int]) -> list[str]:
    """Lines with the NDCG@10 of each version and of the baselines on the same users; ``tuned`` holds the fine-tuned versions."""
    names = ["model_version", "model", "split", "segment", "metric", "k", "value", "users", "beside_version"]
    rows = [
        row
        for row in tables.read(WAREHOUSE / "model_metrics", names)
        if (row["split"], row["segment"], row["metric"], row["k"]) == ("test", "all", "ndcg", 10)
    ]
    lines = []
    for version in sorted({row["model_version"] for row in rows if row["model_version"]}):
        own = [row for row in rows if row["model_version"] == version][-1]
        beside = {r["model"]: r["value"] for r in rows if not r["model_version"] and r["beside_version"] == version}
        others = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in sorted(beside.items()))
        note = (
            " [mostly simulated clicks on the champion's lists, which favour it: no proof]" if version in tuned else ""
        )
        lines.append(f"  {own['value']:8.4f}  version {version}, {own['users']} users; {others}{note}")
    return lines + [f"            {line}" for line in _decisions()]


def _decisions() -> list[str]:
    rows = tables.read(WAREHOUSE / "promotions", ["decided_at", "decision", "challenger_version", "reason"])
    return [
        f"version {row['challenger_version']}: {row['reason']}"
        for row in sorted(rows, key=lambda row: row["decided_at"])
    ]


def _now() -> datetime:
    return datetime.now(UTC)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def main() -> int:
    """The exit code: 0 if the loop completed, 1 with one line if a step failed, 130 on Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    began = time.monotonic()
    shape = "{desc} {bar} {n_fmt}/{total_fmt} steps, {elapsed}"
    try:
        shutil.rmtree(OUT, ignore_errors=True)
        LANDING.mkdir(parents=True)
        with tqdm(
            total=STEPS, disable=not sys.stderr.isatty(), bar_format=shape, dynamic_ncols=True, leave=False
        ) as bar:
            demo = Demo(bar)
            try:
                loop(demo)
            finally:
                demo.stop()
        print("\n".join(summary(demo, time.monotonic() - began)))
    except KeyboardInterrupt:
        print("\ndemo: stopped; `make demo` starts again from the beginning", file=sys.stderr)
        return 130
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""### Headwater, after new sequences: learn from what users did with their lists

Starts when the nightly or nearline DAG has built sequences (the Asset `headwater_sequences`); several such events start
one run. It attributes new actions to the list, rank and model that showed the item. When enough feedback has gathered
(`finetune.min_feedback`), it fine-tunes a challenger from the champion, measures it, lets the gate decide, and rewrites
all lists if the challenger was promoted. This DAG updates no Asset that starts it, so it never triggers itself.

What to do when a task fails:

- `collect_feedback`: clear it; each action is attributed once, by `event_id`.
- `finetune_model`: *skipped* is the usual end: there is too little feedback, and all later tasks are skipped too.
  *Failed*: the champion stays; the next run tries again with the same feedback and any new one.
- `evaluate_model`, `promote_model`: the champion stays. *Skipped* means that the gate refused, which is not a failure:
  see the table `promotions`. The lists stay too.
- `score_topn`: the lists stay as they were. Clear it.

If a fine-tuned model turns out worse after the gate promoted it: run `promote_model --rollback`, then pause this DAG.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import chain, dag

from _jobs import CHAMPION, DEFAULTS, FEEDBACK, FINETUNED, SEQUENCES, TOPN, is_refused, job_task


@dag(
    dag_id="headwater_feedback",
    schedule=[SEQUENCES],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["headwater", "feedback"],
)
def feedback() -> None:
    chain(
        job_task("collect_feedback", minutes=60, outlets=[FEEDBACK]),
        job_task("finetune_model", minutes=120),
        job_task("evaluate_model", "--version", FINETUNED, minutes=60),
        job_task("promote_model", "--version", FINETUNED, minutes=30, outlets=[CHAMPION], skip_if=is_refused),
        job_task("score_topn", "--mode", "full", minutes=180, outlets=[TOPN]),
    )


feedback()

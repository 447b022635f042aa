"""### Headwater, after new sequences: learn from what users did with their lists

Starts when nightly or nearline has built sequences (the Asset `headwater_sequences`); several such events make one
run. Attributes new actions to the list, rank and model that showed the item, fine-tunes a challenger from the champion
when enough has gathered (`finetune.min_feedback`), measures it, lets the gate decide, and rewrites all lists when it was
promoted. This DAG updates no Asset that starts it, so it never chases itself.

What to do when a task fails:

- `collect_feedback`: clear it; an action is attributed once, by `event_id`.
- `finetune_model`: *skipped* is the ordinary end: too little feedback, and all that follows is skipped too. *Failed*:
  the champion stays, the next run tries again on the same feedback and what came since.
- `evaluate_model`, `promote_model`: the champion stays. *Skipped* is a refusal, which is no failure: see the table
  `promotions`. The lists stay too.
- `score_topn`: the lists stay as they were. Clear it.

The fine-tuned model is worse and went through all the same? `promote_model --rollback`, then pause this DAG.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import chain, dag

from _jobs import CHAMPION, DEFAULTS, FEEDBACK, FINETUNED, SEQUENCES, TOPN, is_refused, start_job


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
        start_job("collect_feedback", minutes=60, outlets=[FEEDBACK]),
        start_job("finetune_model", minutes=120),
        start_job("evaluate_model", "--version", FINETUNED, minutes=60),
        start_job("promote_model", "--version", FINETUNED, minutes=30, outlets=[CHAMPION], skip_if=is_refused),
        start_job("score_topn", "--mode", "full", minutes=180, outlets=[TOPN]),
    )


feedback()

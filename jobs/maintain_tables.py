"""Delete old rows, pack small files and remove files and models that are no longer needed; or remove one person everywhere.

    python jobs/maintain_tables.py --config conf/site.yaml
    python jobs/maintain_tables.py --forget USER

Rows older than `maintain.keep_days` are deleted, by default none, and none that a job still has to read; so are item vectors of
all model versions but the newest `maintain.keep_versions`. Files are kept for `maintain.retention_hours`, or longer if a job has
not yet read the changes in them. In the work folder, downloaded model versions are kept for the same time after they were last
opened, and so are leftovers of trainings that never finished.
`--forget` deletes a person's rows from every table, by id or, with `privacy.key_file`, by pseudonym, and purges all older
versions and such leftovers, so that none of them holds the person; it is refused while a training runs. Nothing that names the
person is printed or logged.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import typer

from headwater import job, privacy
from headwater.errors import HeadwaterError, UsageError
from headwater.ingest.lines import BLANKS
from headwater.job import Job
from headwater.tables import forget, upkeep
from headwater.work import is_training, prune, prune_trainings

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(
    forget_user: str = typer.Option(None, "--forget", metavar="USER", help="remove this person everywhere"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("maintain_tables", lambda j: maintain(j) if forget_user is None else remove(j, forget_user), config, set_)


def maintain(j: Job) -> dict[str, Any]:
    rules, window = j.config.maintain, timedelta(hours=j.config.feedback.window_hours)
    deleted, needed = upkeep.delete_old(j.warehouse, rules.keep_days, window, j.now)
    deleted += upkeep.delete_old_vectors(j.warehouse, rules.keep_versions)
    for table, behind in needed.items():
        j.log.warning("old rows are not deleted, because a job still needs them", table=table, behind=behind)
    counts, not_vacuumed = upkeep.maintain(j.warehouse, rules.retention_hours, j.now)
    for table, behind in not_vacuumed.items():
        j.log.warning("not vacuumed, because a job has not yet read all changes", table=table, behind=behind)
    unused_since = j.now.timestamp() - rules.retention_hours * 3600
    return {"rows_deleted": deleted, **counts, "folders_removed": prune(j.config, unused_since)}


def remove(j: Job, user: str) -> dict[str, Any]:
    user = user.strip(BLANKS)
    if not user:
        raise UsageError("--forget needs a user id, as it appears in the events")
    # a training holds a snapshot of everybody's sequences, and a killed one leaves it
    if is_training(j.config):
        raise HeadwaterError("a training is running on everybody's events; run --forget when it has ended")
    counts = forget.forget(j.warehouse, privacy.ids_of(user, privacy.load_key(j.config.privacy.key_file)))
    removed = prune_trainings(j.config)
    if is_training(j.config):
        raise HeadwaterError(
            "a training has begun meanwhile, perhaps with this person's events; run --forget again when it has ended"
        )
    return {**counts, "folders_removed": removed}


if __name__ == "__main__":
    job.start(app)

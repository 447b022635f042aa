"""Pack small files and remove files and downloaded models that are no longer needed; or remove one person everywhere, at once.

    python jobs/maintain_tables.py --config conf/site.yaml
    python jobs/maintain_tables.py --forget USER

Files are kept for `maintain.retention_hours`, or longer if a job has not yet read the changes in them. In the work folder,
model versions are kept for the same time after they were last opened, and so are leftovers of trainings that never finished.
`--forget` deletes a person's rows from every table, by id or, with `privacy.key_file`, by pseudonym, and purges all older
versions, so that none of them holds the person. Nothing that names the person is printed or logged.
"""

from __future__ import annotations

from typing import Any

import typer

from headwater import job, privacy
from headwater.errors import UsageError
from headwater.ingest.lines import BLANKS
from headwater.job import Job
from headwater.tables import forget, upkeep
from headwater.work import prune

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(
    forget_user: str = typer.Option(None, "--forget", metavar="USER", help="remove this person everywhere"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("maintain_tables", lambda j: maintain(j) if forget_user is None else remove(j, forget_user), config, set_)


def maintain(j: Job) -> dict[str, Any]:
    counts, kept = upkeep.maintain(j.warehouse, j.config.maintain.retention_hours, j.now)
    for table, behind in kept.items():
        j.log.warning("not vacuumed, because a job has not yet read all changes", table=table, behind=behind)
    unused_since = j.now.timestamp() - j.config.maintain.retention_hours * 3600
    return {**counts, "folders_removed": prune(j.config, unused_since)}


def remove(j: Job, user: str) -> dict[str, Any]:
    user = user.strip(BLANKS)
    if not user:
        raise UsageError("--forget needs a user id, as it appears in the events")
    key = privacy.load_key(j.config.privacy.key_file)
    return forget.forget(j.warehouse, [user] if key is None else [user, privacy.pseudonym(user, key)])


if __name__ == "__main__":
    job.start(app)

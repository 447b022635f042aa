"""Write one self-contained HTML page that shows how the loop runs and how good and fresh the lists are.

    python jobs/build_report.py --config conf/site.yaml --output report.html

The page holds counts, and the last events and the lists of five users. If a table is missing or cannot be read, or MLflow does
not answer, the section shows a sentence instead; for a missing table it names the job to run. The file is replaced in one step.
"""

from __future__ import annotations

from pathlib import Path

import typer

from headwater import job, report
from headwater.job import Job
from headwater.local import write_atomically
from headwater.report.output import check_writable
from headwater.report.runs import read_runs

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(
    output: Path = typer.Option(Path("report.html"), help="the file to write"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("build_report", lambda j: write(j, output), config, set_)


def write(j: Job, output: Path) -> dict[str, int | str]:
    check_writable(output)
    page = report.build(j.warehouse, read_runs(j.config), j.now)
    write_atomically(output, lambda file: file.write_text(page.html, encoding="utf-8"))
    return {"output": str(output), "bytes": len(page.html.encode()), "sections_missing": len(page.missing)}


if __name__ == "__main__":
    job.start(app)

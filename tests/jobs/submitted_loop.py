"""An application for spark-submit: runs jobs one after the other in its session, then prints where executors found the library.

spark-submit --py-files headwater.zip submitted_loop.py '[["jobs/ingest_events.py", "--config", …], …]'
"""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession


def library_file(_: int) -> str:
    import headwater

    return headwater.__file__


sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
import warm  # noqa: E402

for program, *flags in json.loads(sys.argv[1]):
    if code := warm.run(program, flags):
        sys.exit(code)
context = SparkSession.getActiveSession().sparkContext
found = set(context.parallelize(range(4), 4).map(library_file).collect())
print(json.dumps({"executors_import": sorted(found)}))

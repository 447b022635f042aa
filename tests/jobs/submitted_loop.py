"""An application for spark-submit: runs jobs one after the other in its session, then says where executors found us.

spark-submit --py-files headwater.zip submitted_loop.py '[["jobs/ingest_events.py", "--config", …], …]'
"""

import json
import runpy
import sys

from pyspark.sql import SparkSession


def where(_: int) -> str:
    import headwater

    return headwater.__file__


for program, *flags in json.loads(sys.argv[1]):
    sys.argv = [program, *flags]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
context = SparkSession.getActiveSession().sparkContext
found = set(context.parallelize(range(4), 4).map(where).collect())
print(json.dumps({"executors_import": sorted(found)}))

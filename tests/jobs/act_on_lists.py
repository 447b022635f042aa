"""Users click the first two items of their lists: act_on_lists.py WAREHOUSE FILE, in the active Spark session."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import shop

warehouse, file = sys.argv[1:]
lists = SparkSession.getActiveSession().read.format("delta").load(f"{warehouse}/topn")
now = datetime.now(UTC) + timedelta(seconds=1)
shown = lists.where("rank <= 2").collect()
Path(file).write_text("\n".join(shop.api_line(row["user_id"], row["item_id"], "click", now) for row in shown) + "\n")

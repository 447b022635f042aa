"""The demo's modules import one another by name, as ``python demo/run.py`` lets them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))

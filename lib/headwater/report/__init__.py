"""The report: one HTML file that shows how the loop runs and what it produces."""

from headwater.report.page import build

__all__ = ["build"]

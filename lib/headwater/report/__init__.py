"""The report: one HTML file that shows people how the loop runs and what it gives."""

from headwater.report.page import build

__all__ = ["build"]

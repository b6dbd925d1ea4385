"""Reports: tables of many runs, and one offline page of results."""

from scorefield.report.page import write_report as write_report

__all__ = ["write_report"]

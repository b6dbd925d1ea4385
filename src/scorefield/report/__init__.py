"""Reports: tables of many runs, and one offline page that says what they show."""

from scorefield.report.page import write_report as write_report

__all__ = ["write_report"]

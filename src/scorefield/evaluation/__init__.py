"""Evaluation of a run: samples, diagnostics by noise level, likelihood, and the records of them."""

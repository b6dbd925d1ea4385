"""Analyses that are no runs: instruments on fields whose answer is known, and the like."""

"""Data sets: training points and reference points."""

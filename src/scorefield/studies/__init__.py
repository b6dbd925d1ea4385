"""Studies of fields and data sets that are no runs: calibration, dose, exterior, patches, atoms."""

"""Studies of fields and data sets: calibration, dose, exterior derivative, patches, atoms."""

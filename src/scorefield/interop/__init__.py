"""Networks of other code bases: their files, weights and configurations."""

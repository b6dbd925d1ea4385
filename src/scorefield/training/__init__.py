"""Training: one trainer for every field and objective."""

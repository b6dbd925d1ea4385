"""The check of a model: what it claims to be, whether that fits, and how good a score it is."""

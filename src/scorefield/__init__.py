"""Score models as vector fields."""

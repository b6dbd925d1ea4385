"""Run folders: made, opened, trained, inspected."""

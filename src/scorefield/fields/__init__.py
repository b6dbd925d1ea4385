"""Score fields: anything with a score, and the forms in which it can be said."""

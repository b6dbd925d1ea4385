"""Forward processes: how data become noise, at once or in steps."""

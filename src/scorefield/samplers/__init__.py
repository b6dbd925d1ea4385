"""Methods that turn a score field into samples."""

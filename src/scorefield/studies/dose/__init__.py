"""What errors with and without curl, planted in an exact field, do to samples and likelihood."""

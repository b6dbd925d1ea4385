"""How often diagnostics are right on fields whose answer is known."""

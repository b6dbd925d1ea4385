"""How often every interval of the library, at default settings, contains the true value."""

"""Models of pseudo-atoms compared with their exact distribution."""

"""What passes cost in terms of one another. Knows no network."""

BACKWARD = 2
"""A backward pass costs two forwards."""

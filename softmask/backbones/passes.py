"""What passes cost in terms of one another. Knows no network."""

BACKWARD = 2
"""A backward pass costs two forwards."""
BACKWARD_FROZEN = 1
"""Half of it where nearly all weights are frozen: gradients of activations only."""

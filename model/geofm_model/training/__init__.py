"""Training: what is asked of a network, and how its weights are changed."""

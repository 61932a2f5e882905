"""Dataset health: what a run kept, counted over its checkpoints, and what moved since the run before."""

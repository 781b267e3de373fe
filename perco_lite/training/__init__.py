"""Your own weights: one loop, and a file a stage."""

"""Metrics of sets of photos, their intervals, and Bjøntegaard deltas."""

"""How good is it, and against what."""

"""The experiments that decide the claims."""

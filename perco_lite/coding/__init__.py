"""What a file is made of, and how likely each of its symbols is; torch-free."""

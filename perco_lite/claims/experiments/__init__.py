"""The experiments that decide the claims.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.
"""

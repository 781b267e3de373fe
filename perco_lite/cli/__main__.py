"""`python -m perco_lite.cli`: the command without its script."""

from perco_lite.cli.main import app

app()

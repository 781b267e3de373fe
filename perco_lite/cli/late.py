"""Groups of commands whose module is imported once one of them is asked for.

perco --help ──► the group's name and line of help          perco train … ──► ``cli.train``
"""

import typer
from typer.core import TyperGroup


class TrainGroup(TyperGroup):
    """`perco train`, whose options are built from the settings of every training."""

    def _commands(self) -> dict:
        from perco_lite.cli.train import train_app

        return typer.main.get_command(train_app).commands

    commands = property(_commands, lambda self, none_yet: None)

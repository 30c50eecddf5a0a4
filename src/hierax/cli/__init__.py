"""The command line: ``hierax demo``, ``hierax fit``, ``hierax check``."""

from hierax.cli.commands import app as app
from hierax.cli.commands import main as main
from hierax.cli.commands import prepare as prepare

"""``python -m hierax.cli``."""

from hierax.cli.commands import main

main()

"""Drawing data from a program."""

"""What the end of a fit is worth: whether it is an optimum, and whether there is one."""

"""Drawing what a fit shows; every function returns a matplotlib figure."""

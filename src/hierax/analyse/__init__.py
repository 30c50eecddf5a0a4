"""What works on fits: comparison, intervals, simulation, refits."""

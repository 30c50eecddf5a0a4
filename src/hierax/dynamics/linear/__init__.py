"""Linear compartment models in closed form."""

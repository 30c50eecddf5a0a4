"""Reading and holding the data of a population: NumPy and pandas, no JAX transforms."""

"""Reading NumPyro programs: their sites, parameters, densities, and checks of them."""

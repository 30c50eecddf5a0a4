"""Results of a fit: estimates, uncertainty, tables and files."""

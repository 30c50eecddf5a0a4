"""What is wrong or odd in a table, and what to do about it."""

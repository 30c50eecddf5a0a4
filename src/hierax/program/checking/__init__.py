"""What is checked of a program, and what is said of it, before anything is estimated."""

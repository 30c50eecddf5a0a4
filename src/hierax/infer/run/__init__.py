"""What keeps a long fit safe and stops it early: files, locks, owners, held-out subjects."""

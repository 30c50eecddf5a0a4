"""The state of a long fit on disk: files, locks, and what they belong to."""

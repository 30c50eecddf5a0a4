"""From a table to records: names of columns, times, codes, identities."""

"""EM by simulation: SAEM, importance sampling, quasi-random points."""

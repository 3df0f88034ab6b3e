"""Who wrote a commit: pure functions from what git says to an origin, with the lines that say so."""

"""`make bench`: the numbers Serin promises, measured with the installed product on the local cluster."""

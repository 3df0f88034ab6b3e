"""Stand-ins for servers that are not ours, with faults on order."""

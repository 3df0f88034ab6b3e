"""The loop: observe, decide, act, record. `reconcile.py` first; it fits on one screen."""

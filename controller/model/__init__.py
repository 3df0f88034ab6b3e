"""The words of Serin as frozen types: what users write, what status remembers, what the loop observes.

`spec.py` is what people write and the source of the CRDs; `status.py` is the only memory;
`world.py` is what one turn of the loop sees. Nothing here does I/O.
"""

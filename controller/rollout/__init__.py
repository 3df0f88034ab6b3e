"""The state machine: `decide.py` first. Pure: values in, a value out, `now` among the arguments."""

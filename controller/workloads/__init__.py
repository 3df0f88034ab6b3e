"""How each kind of workload is held, tried and released, behind `ports.Workload`.

`deployment.py` is the adapter and does the I/O; `parse.py`, `services.py` and `render.py` are pure: objects as
the API server returns them go in, values of the model, objects and patches come out.
"""

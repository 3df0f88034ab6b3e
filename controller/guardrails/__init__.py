"""Guardrails: who wrote a change, what it touches, what the policies make of it, and when nothing may be released.

`policy.py` first: it turns a candidate into the plan it will be released by. All of it is pure, and all of it can only
tighten what the Canary says.
"""

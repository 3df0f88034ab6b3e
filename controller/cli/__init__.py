"""`kubectl canary`: what a person sees of a rollout and the words with which a person steers it.

Standard library and rich only, so that it starts in a blink; kubectl itself is the transport, because it knows
exec plugins, OIDC, proxies and contexts. Commands are a few lines over pure functions of plain dicts: `view.py`
first. Nothing here changes a rollout except by writing a Decision; only `detach` writes more, for the day when
no controller is there to read one.
"""

"""What the controller tells of itself: metrics, traces, and a page for debugging. It tells, it never decides.

Nothing here carries text that people wrote: a series or a span names an object by its namespace and name, and
else only words of Serin's own, so that neither a scraper nor a trace store learns what a message says.
"""

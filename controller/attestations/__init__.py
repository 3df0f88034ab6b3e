"""What is proven about an image: statements found in its registry, verified, and summed up as evidence.

`dsse`, `keys`, `images`, `statements` and `summary` are pure; `registry` and `provenance` fetch. The one thing to know:
a statement is believed for the digest that it names and for nothing else, and whatever cannot be verified is as good as
absent, which is the strictest there is.

Turned down: `securesystemslib`, which refuses envelopes without a key id, as cosign writes them; asking an admission
controller of another project, since a release has to be held where none is installed.
"""

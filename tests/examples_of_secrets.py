"""Credentials as people paste them, made up and put together here, so that no scanner takes one for real."""

SECRETS = (
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "11ABCDEFG0_" + "x" * 40,
    "glpat-" + "x1y2" * 5,
    "xoxb-" + "123456789012-abcdefGHIJ",
    "sk-" + "ant-api03-" + "Zz9_" * 8,
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "AIza" + "SyA-1234567890abcdefghijklmnopqrs",
    "npm_" + "Q1w2" * 9,
    "hf_" + "Q1w2" * 9,
    "hvs." + "CAESI" * 6,
    "eyJhbGciOiJSUzI1NiJ9" + ".eyJzdWIiOiJ4In0" + ".c2lnbmF0dXJl",
    "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END " + "RSA PRIVATE KEY-----",
)
"""each is one by its own shape"""

GIVEN_AWAY = (
    ("password=", "hunter2!"),
    ("DB_PASSWORD: ", "correct-horse"),
    ('"clientSecret": "', "s3cr3t-value"),
    ("--api-key=", "0123456789"),
    ("Authorization: Bearer ", "abcdefghijklmnop1234"),
    ("https://bob:", "pa55word"),
)
"""what stands before gives the rest away; an address goes on with @host"""

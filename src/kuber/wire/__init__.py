"""JSON messages between services and their callers: the domain's values, and back.

A message refuses unknown fields; `read` ignores them, so that an older caller understands a newer service.
"""

PROTOCOL = 1
PROTOCOL_HEADER = "KUber-Protocol"
KEY_HEADER = "Idempotency-Key"
DIRECT_HEADER = "KUber-Direct"

"""Bodies that schemathesis cannot write by itself."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(context, value):
    # Whatever it is: as it is if it is text, or else a line of JSON.
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()

#!/usr/bin/env python3
"""Says something to the bot and prints what it said. Needs Python 3.9 and nothing else.

    examples/client.py alice "Where is my order?"

The message is posted with `Prefer: respond-async`, so that no request is held while the bot thinks, and then read
with a long poll until it has ended. An `Idempotency-Key` makes the post safe to repeat: after a lost answer nobody
knows whether the bridge has the message, and with the key it does not matter.

RTM_BRIDGE_URL names the bridge, RTM_BRIDGE_KEY holds the caller's key, where there is one.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

BASE = os.environ.get("RTM_BRIDGE_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("RTM_BRIDGE_KEY")
ATTEMPTS = 8
# Longer than the bridge holds a request (55 s), so that it is the bridge that ends the wait.
TIMEOUT = 70


class Failed(Exception):
    """The bridge refused the message, or it ended with this problem (RFC 9457)."""

    def __init__(self, problem):
        super().__init__(f"{problem['type'].removeprefix('/problems/')}: {problem['detail']}")
        self.problem = problem


def call(method, path, headers, body=None):
    """One request, repeated while that is safe and may help. Returns headers and JSON."""
    request = urllib.request.Request(BASE + path, method=method, headers=headers)
    if KEY:
        request.add_header("Authorization", f"Bearer {KEY}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.headers, json.load(response)
        except urllib.error.HTTPError as error:
            again = error.code in (429, 503) and attempt + 1 < ATTEMPTS
            if not again:
                if error.headers.get_content_type() != "application/problem+json":
                    raise  # Not the bridge's answer: a proxy's, perhaps.
                raise Failed(json.load(error)) from None
            pause = float(error.headers.get("Retry-After", 1))
        except OSError:  # No connection, a broken one, a time-out.
            if attempt + 1 == ATTEMPTS:
                raise
            pause = min(2**attempt / 4, 10)
        time.sleep(pause)
    raise AssertionError("the loop returns or raises")


def say(user, text, **more):
    """Posts a message and returns it when it has ended. `more` are further fields of the body."""
    path = f"/conversations/{urllib.parse.quote(user, safe='')}/messages"
    headers = {"Prefer": "respond-async", "Idempotency-Key": str(uuid.uuid4())}
    head, message = call("POST", path, headers, {"text": text, **more})
    location = head["Location"]
    while message["status"] not in ("answered", "failed"):
        _, message = call("GET", location, {"Prefer": "wait=50"})
    if message["status"] == "failed":
        raise Failed(message["error"])
    return message


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} USER TEXT")
    try:
        message = say(sys.argv[1], sys.argv[2])
    except Failed as failure:
        sys.exit(str(failure))
    except OSError as error:
        sys.exit(f"{BASE} cannot be reached: {error}")
    for reply in message["replies"]:
        print(reply["text"])
    if not message["complete"]:
        print(f"(cut by {message['endedBy']}: there may be more)", file=sys.stderr)


if __name__ == "__main__":
    main()

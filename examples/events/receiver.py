"""A receiver of events: verifies signatures and prints each event once, as a line of JSON.

SECRET is the secret of the sink (whsec_…), PORT the port to listen on; 0 chooses a free one.
"""

import base64
import collections
import hashlib
import hmac
import http.server
import json
import os
import time

KEY = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))
TOLERANCE_SECONDS = 300
# A request has at most 1 MiB, unless a single event is larger.
BODY_BYTES_MAX = 2 * 1024 * 1024
# Ids of recent events. A batch is sent again when its answer was lost.
SEEN = collections.OrderedDict()
SEEN_MAX = 100_000


def is_number(text):
    return text.isascii() and text.isdigit() and len(text) < 20


def is_signed(headers, body):
    """Whether the request is of the holder of the secret, and recent."""
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not is_number(timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(KEY, signed, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    signatures = headers.get("webhook-signature", "").split(" ")
    # As bytes: a text that is not ASCII cannot be compared.
    return any(
        hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
        for signature in signatures
    )


def handle(event):
    """Handles an event that has not been seen before. An exception asks for another attempt."""
    print(json.dumps(event), flush=True)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        # Before anything is read: the sender is not known yet.
        length = self.headers.get("content-length", "")
        if not is_number(length) or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413 if is_number(length) else 411)
        body = self.rfile.read(int(length))
        if not is_signed(self.headers, body):
            return self.answer(401)
        for event in json.loads(body)["events"]:
            if event["id"] in SEEN:
                continue
            handle(event)
            SEEN[event["id"]] = True
            if len(SEEN) > SEEN_MAX:
                SEEN.popitem(last=False)
        return self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ.get("PORT", "3000")))
    server = http.server.ThreadingHTTPServer(address, Receiver)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()

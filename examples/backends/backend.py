"""A backend that decides about clients, with the standard library of Python."""

import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def connect(request, cookie):
    session = re.search(r"session=(\w+)", cookie)
    if session is None:
        return {"error": {"code": 1001, "message": "log in first"}}
    return {"result": {"user": session[1], "channels": ["news"]}}


def subscribe(request, cookie):
    if request["channel"].startswith("room"):
        return {"result": {}}
    return {"error": {"code": 103, "message": "permission denied"}}


def publish(request, cookie):
    return {"result": {"data": {"from": request["user"], "text": request["data"]["text"]}}}


def rpc(request, cookie):
    if request["method"] == "echo":
        return {"result": {"data": request.get("data")}}
    return {"error": {"code": 104, "message": "method not found"}}


ANSWERS = {"/connect": connect, "/subscribe": subscribe, "/publish": publish, "/rpc": rpc}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Keeps connections open.

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = ANSWERS[self.path](request, self.headers.get("Cookie", ""))
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Handler)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()

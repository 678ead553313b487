"""A receiver of webhooks, for the end-to-end tests.

Prints its address, then a JSON line for each request: path, whether the signature fits, body. Reads JSON lines: {"secret": ..} to check signatures by, {"answers": [..]}
for the statuses of the next requests (then 204). Checks signatures by the code that docs/webhooks.md shows.
"""

import http.server
import json
import pathlib
import re
import sys
import threading

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
documented = {}
exec(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL).group(1), documented)

lock = threading.Lock()
secret = ""
answers = []


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with lock:
            status = answers.pop(0) if answers else 204
            valid = documented["is_ours"](self.headers["Campanile-Signature"], body, secret)
            line = {"path": self.path, "valid": valid, "status": status, "body": json.loads(body)}
            print(json.dumps(line), flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"port": server.server_port}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    with lock:
        secret = order.get("secret", secret)
        answers.extend(order.get("answers", []))
    print(json.dumps({"done": True}), flush=True)

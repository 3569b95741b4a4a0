"""The guestbook's web front end: counts visits in Redis, with nothing but Python's standard library.

/         one more visit: greeting, count, and which pod answered
/healthz  200 while this process serves
/readyz   200 while the store answers too and /tmp/not-ready does not exist
"""

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORE = os.environ.get("STORE", "store:6379")
PASSWORD = os.environ.get("PASSWORD", "")
POD = os.environ.get("POD_NAME", socket.gethostname())
GREETING = "/etc/guestbook/greeting"


def redis(*words):
    """One command to the store, and its answer as text. Raises OSError where the store does not answer."""
    host, port = STORE.rsplit(":", 1)
    commands = [["AUTH", PASSWORD]] if PASSWORD else []
    commands.append(list(words))
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        lines = connection.makefile("rb")
        answer = ""
        for command in commands:
            text = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in command)
            connection.sendall(f"*{len(command)}\r\n{text}".encode())
            answer = lines.readline().decode().strip()
            if not answer or answer.startswith("-"):
                raise OSError(answer or "the store closed the connection")
        return answer[1:]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        try:
            if self.path == "/healthz":
                self.answer(200, "ok\n")
            elif self.path == "/readyz":
                if os.path.exists("/tmp/not-ready"):
                    self.answer(503, "asked not to be ready\n")
                else:
                    redis("PING")
                    self.answer(200, "ok\n")
            elif self.path == "/":
                with open(GREETING, encoding="utf-8") as file:
                    greeting = file.read().strip()
                self.answer(200, f"{greeting}! You are visitor {redis('INCR', 'visits')}, served by {POD}.\n")
            else:
                self.answer(404, "not found\n")
        except OSError as error:
            self.answer(503, f"the store {STORE} does not answer: {error}\n")

    def answer(self, code, text):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text, *words):
        if not self.path.endswith("z"):  # probes would drown everything else
            print(f"{self.address_string()} {text % words}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{POD} serves on port 8080, store {STORE}", flush=True)
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()

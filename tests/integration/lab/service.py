"""Stands for a service of OpenStack's in its container: it runs, and kolla's own health test of it passes.

usage: service.py NAME [PORT]

With a connection to a message queue, which is played by this process itself, and at PORT with an answer to GET /healthcheck.
"""

import http.server
import socket
import sys
import threading

queue = socket.create_server(("127.0.0.1", 5672))
client = socket.create_connection(("127.0.0.1", 5672))
connection, _address = queue.accept()


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


if len(sys.argv) > 2:
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Healthy).serve_forever()
threading.Event().wait()

"""An embedding server with one fault on purpose: any function from texts to vectors over HTTP."""

import http.server
import json
import threading


class FaultyServer:
    """Serves ``embed`` (texts of one request to rows of numbers) as OpenAI, TEI or Ollama do.

    Attributes
    ----------
    requests : path and body of each request.
    answers : (status, headers, body) to give to the next requests that embed, before any vectors.
    keys : bearer keys that are accepted; everyone is where it is empty.
    """

    def __init__(self, embed, api="openai", models=("tiny",)):
        self.requests, self.answers, self.keys, self.seen_keys = [], [], (), []
        self.embed, self.api, self.models = embed, api, list(models)
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(*fake.listing(self.path))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append((self.path, body))
                key = self.headers.get("Authorization", "")
                fake.seen_keys.append(key)
                if fake.keys and key.removeprefix("Bearer ") not in fake.keys:
                    self.reply(401, {}, json.dumps({"error": {"message": "no such key"}}).encode())
                else:
                    self.reply(*(fake.answers.pop(0) if fake.answers else fake.answer(body)))

            def reply(self, status, headers, content):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def listing(self, path):
        listings = {
            "openai": ("/v1/models", {"data": [{"id": name} for name in self.models]}),
            "ollama": ("/api/tags", {"models": [{"name": name} for name in self.models]}),
            "tei": ("/info", {"model_id": next(iter(self.models), "")}),
        }
        known, body = listings[self.api]
        if path != known:
            return 404, {}, b"<html>nothing here</html>"
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    def answer(self, body):
        texts = body["inputs" if self.api == "tei" else "input"]
        rows = [[float(number) for number in row] for row in self.embed(texts)]
        if self.api == "tei":
            answer = rows
        elif self.api == "ollama":
            answer = {"embeddings": rows}
        else:
            data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
            answer = {"object": "list", "data": data[::-1]}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

"""Answers on HTTP as a Qdrant server does, as far as millpond asks; remembers every request.

It searches by brute force.
"""

import json
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np

Request = namedtuple("Request", "method path query body headers size")

CONFIG = {
    "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "flush_interval_sec": 5,
    },
}


class Refused(Exception):  # noqa: N818
    def __init__(self, status, message="", headers=()):
        self.status, self.message, self.headers = status, message, dict(headers)


class FakeServer:
    """``failures`` holds [method, end of path, status, how often, headers]; ``statuses`` what a
    collection's status is in turn, then green; ``key`` the API key that is wanted."""

    def __init__(self):
        self.requests, self.failures, self.statuses = [], [], []
        self.collections, self.aliases = {}, {}
        self.key = None
        self.keeps_metadata = True
        self.loses_points = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def sent(self, method, end):
        return [r for r in self.requests if r.method == method and r.path.endswith(end)]

    def answer(self, request):
        with self._lock:
            self.requests.append(request)
            self._check_key(request.headers)
            self._fail(request)
            parts = [part for part in request.path.split("/") if part]
            return self._route(request.method, parts, request.body)

    def _check_key(self, headers):
        if self.key is None or headers.get("api-key") == self.key:
            return
        raise Refused(403 if "api-key" in headers else 401, "Forbidden: invalid key")

    def _fail(self, request):
        for failure in self.failures:
            method, end, status, _, headers = failure
            if failure[3] and request.method == method and request.path.endswith(end):
                failure[3] -= 1
                raise Refused(status, "not now", headers)

    def _route(self, method, parts, body):
        if parts == ["aliases"]:
            items = self.aliases.items()
            return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in items]}
        if parts == ["collections"]:
            return {"collections": [{"name": name} for name in self.collections]}
        if parts == ["collections", "aliases"]:
            return self._change_aliases(body["actions"])
        name = self.aliases.get(parts[1], parts[1])
        if parts[2:] == ["exists"]:
            return {"exists": name in self.collections}
        if method == "PUT" and len(parts) == 2:
            self.collections[name] = {"body": body, "points": {}}
            return True
        if name not in self.collections:
            raise Refused(404, f"Collection `{name}` doesn't exist!")
        return self._collection(method, name, parts[2:], body)

    def _change_aliases(self, actions):
        for action in actions:
            if "delete_alias" in action:
                del self.aliases[action["delete_alias"]["alias_name"]]
            else:
                made = action["create_alias"]
                self.aliases[made["alias_name"]] = made["collection_name"]
        return True

    def _collection(self, method, name, rest, body):
        collection = self.collections[name]
        points = collection["points"]
        if rest == ["points"]:
            points.update({point["id"]: point for point in body["points"]})
            return {"operation_id": 1, "status": "completed"}
        if rest == ["index"]:
            collection.setdefault("indexes", {})[body["field_name"]] = body["field_schema"]
            return {"operation_id": 1, "status": "completed"}
        if rest == ["points", "count"]:
            return {"count": len(points) - self.loses_points}
        if rest == ["points", "query", "batch"]:
            return [search(collection, query) for query in body["searches"]]
        if rest == ["points", "query"]:
            return search(collection, body)
        if method == "DELETE":
            del self.collections[name]
            return True
        if method == "PATCH":
            collection["body"]["metadata"].update(body["metadata"])
            return True
        return self._info(collection["body"])

    def _info(self, body):
        metadata = body.get("metadata") if self.keeps_metadata else None
        return {
            "status": self.statuses.pop(0) if self.statuses else "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {"params": {"vectors": body["vectors"]}, "metadata": metadata, **CONFIG},
            "payload_schema": {},
        }


def search(collection, query):
    points = list(collection["points"].values())
    vectors = np.array([point["vector"] for point in points])
    asked = np.array(query["query"]["nearest"])
    if collection["body"]["vectors"]["distance"] == "Cosine":  # as Qdrant does it, in float32
        vectors, asked = normalized(vectors), normalized(asked[None])[0]
    scores = vectors @ asked
    found = [
        {
            "id": points[n]["id"],
            "version": 0,
            "score": float(scores[n]),
            "payload": keep(points[n]["payload"], query["with_payload"]),
        }
        for n in np.argsort(-scores, kind="stable")[: query["limit"]]
    ]
    return {"points": found}


def normalized(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def keep(payload, wanted):
    return payload if wanted is True else {key: payload[key] for key in wanted}


def make_handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length)
            address = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(content) if content else None
            request = Request(self.command, address.path, address.query, body, headers, length)
            try:
                self.reply(200, {"result": server.answer(request), "status": "ok", "time": 0.0})
            except Refused as error:
                status = {"status": {"error": error.message}, "time": 0.0}
                self.reply(error.status, status, error.headers)

        def reply(self, status, data, headers=()):
            content = json.dumps(data).encode()
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *arguments):
            pass

    return Handler

"""A registry that wants to know who pulls: serves one image of this machine's Docker to whoever brings
the token. Arguments: the image, and what has to stand behind `Basic`."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, HTTPServer

IMAGE, TOKEN = sys.argv[1:]
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

saved = subprocess.run(["docker", "save", IMAGE], capture_output=True, check=True).stdout
saved = tarfile.open(fileobj=io.BytesIO(saved))
listed = json.load(saved.extractfile("manifest.json"))[0]
blobs = {}


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob(name, kind):
    data = saved.extractfile(name).read()
    blobs[digest(data)] = data
    return {"mediaType": kind, "size": len(data), "digest": digest(data)}


manifest = json.dumps({
    "schemaVersion": 2,
    "mediaType": MANIFEST,
    "config": blob(listed["Config"], CONFIG),
    "layers": [blob(layer, LAYER) for layer in listed["Layers"]],
}).encode()


class Registry(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Authorization"] != f"Basic {TOKEN}":
            return self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="ecr"'})
        last = self.path.rsplit("/", 1)[1]
        if "/manifests/" in self.path:
            kind = {"Content-Type": MANIFEST, "Docker-Content-Digest": digest(manifest)}
            return self.answer(200, manifest, kind)
        if "/blobs/" in self.path:
            return self.answer(200, blobs[last], {})
        return self.answer(200, b"{}", {"Docker-Distribution-Api-Version": "registry/2.0"})

    do_HEAD = do_GET

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


HTTPServer(("127.0.0.1", 80), Registry).serve_forever()

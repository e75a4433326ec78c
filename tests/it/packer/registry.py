"""A registry of one image, for nodes of a sandbox: `registry.py ADDRESS IMAGE NAME TAG` serves Docker's IMAGE, with a label that makes it
another one, as NAME:TAG, and prints the port. Only what a pull asks for (distribution, "HTTP API V2")."""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TYPE = "application/vnd.docker.{}+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def main(address, image, name, tag):
    served = {"/v2/": ("application/json", b"{}")}

    def blob(media_type, body):
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        served[f"/v2/{name}/blobs/{digest}"] = ("application/octet-stream", body)
        return {"mediaType": media_type, "size": len(body), "digest": digest}

    saved = subprocess.run(["docker", "save", image], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        listed = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(listed["Config"]))
        config["config"]["Labels"] = {"served-by": "registry.py"}
        manifest = {
            "schemaVersion": 2,
            "mediaType": TYPE.format("distribution.manifest.v2"),
            "config": blob(TYPE.format("container.image.v1"), json.dumps(config).encode()),
            "layers": [blob(LAYER, gzip.compress(tar.extractfile(layer).read())) for layer in listed["Layers"]],
        }
    body = json.dumps(manifest).encode()
    # By its tag first, and then by the digest that this tells.
    for reference in (tag, "sha256:" + hashlib.sha256(body).hexdigest()):
        served[f"/v2/{name}/manifests/{reference}"] = (manifest["mediaType"], body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            media_type, body = served.get(self.path, (None, b""))
            self.send_response(200 if media_type else 404)
            self.send_header("Content-Type", media_type or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

    server = ThreadingHTTPServer((address, 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main(*sys.argv[1:])

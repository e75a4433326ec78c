#!/bin/sh
# On the builder, as root: puts the release on the image. ARCHIVE is the file, SHA256 what it must sum up to.
set -eu

# SSH is up before cloud-init is done, and Docker comes up meanwhile. How it ended is no concern of the image's.
cloud-init status --wait >/dev/null || true
if ! echo "$SHA256  $ARCHIVE" | sha256sum --check --status; then
    echo "fleet: $ARCHIVE has another SHA-256 than $SHA256: is it the release that was meant?" >&2
    exit 1
fi
release=$(mktemp -d)
tar --extract --gzip --no-same-owner --strip-components=1 --directory "$release" --file "$ARCHIVE"
sh "$release/install.sh"
rm -rf "$release" "$ARCHIVE"

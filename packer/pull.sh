#!/bin/sh
# On the builder, as root: pulls IMAGES, separated by blanks, so that nodes need not wait for them.
set -eu

for image in $IMAGES; do
    docker pull --quiet "$image"
done

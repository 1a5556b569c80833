#!/bin/sh
# Runs a command as root: directly if we are root, else through sudo with our environment.
# Mounting needs it; building does not. Cargo calls this as the runner of test binaries.
if [ "$(id -u)" -eq 0 ]; then exec "$@"; fi
command -v sudo >/dev/null || { echo "as-root: '$1' needs root; run as root or install sudo" >&2; exit 1; }
exec sudo --preserve-env env "PATH=$PATH" "$@"

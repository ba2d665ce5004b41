#!/usr/bin/env bash
# Fetches what the tests show results in from the npm registry, beside this file (ignored by git): the OHIF viewer
# as it is served, and its extension for structured reports with what that needs in node.
set -euo pipefail
cd "$(dirname "$0")"
if [ ! -f .ohif/dist/index.html ]; then
    # As a packed file: its dependencies, hundreds of MiB, are built into it.
    packed=$(npm pack --silent @ohif/app@3.13.2)
    mkdir -p .ohif.new
    tar -xzf "$packed" -C .ohif.new --strip-components=1 --exclude='*.map'
    rm -f "$packed"
    rm -rf .ohif
    mv .ohif.new .ohif
fi
if [ ! -f node_modules/@ohif/extension-cornerstone-dicom-sr/package.json ]; then
    npm install --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --legacy-peer-deps \
        @ohif/extension-cornerstone-dicom-sr@3.13.13 @cornerstonejs/adapters@5.6.8 @cornerstonejs/core@5.6.8 \
        @cornerstonejs/metadata@5.6.8 @cornerstonejs/tools@5.6.8 @cornerstonejs/utils@5.6.8 dcmjs@0.52.0
fi

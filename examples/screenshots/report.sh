#!/bin/sh
# Takes report.png: the report of an experiment, by headless Chromium. Usage: report.sh EXPERIMENT [HEIGHT]
# Run it where the experiment's mlruns/ is; `automl` and `chromium` must be on the path.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
page=$(mktemp -d)
trap 'rm -rf "$page"' EXIT
automl report "$1" -o "$page/report.html"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$page/profile" \
  --window-size="980,${2:-1280}" --screenshot="$here/report.png" "file://$page/report.html"

#!/bin/sh
# fuzz.sh TIME - run every fuzz target of the module for TIME, as many at once
# as there are processors.
# fuzz.sh TIME PACKAGE TARGET - run one.
set -eu
time=${1:-5s}

if [ $# -lt 3 ]; then
	go list -f '{{range .TestGoFiles}}{{$.Dir}}/{{.}} {{$.ImportPath}}
{{end}}{{range .XTestGoFiles}}{{$.Dir}}/{{.}} {{$.ImportPath}}
{{end}}' ./... | while read -r file package; do
		[ -n "$file" ] || continue
		sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$package \1|p" "$file"
	done | xargs -n 2 -P "$(nproc)" "$0" "$time"
	exit
fi

# Go before 1.27 now and then reports the end of TIME itself as a failure
# (go.dev/issue/75804): one that names only the deadline and wrote no failing
# input is that, and nothing else is.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
go test -trimpath -run='^$' -fuzz="^$3\$" -fuzztime="$time" -parallel=1 "$2" </dev/null >"$log" 2>&1 || status=$?
if [ $status -ne 0 ]; then
	complaint=$(sed -n "/^--- FAIL: $3 /,/^FAIL\$/p" "$log" | sed '1d;$d')
	if [ "$complaint" = "    context deadline exceeded" ]; then
		echo "the deadline was reached, no input failed" >>"$log"
		status=0
	fi
fi
echo "fuzz $2 $3
$(cat "$log")"
exit $status

#!/bin/sh
# fuzz.sh TIME - run every fuzz target of the module for TIME.
set -eu
time=${1:-5s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz PACKAGE NAME fails with the target. Go before 1.27 now and then reports
# the end of TIME itself as a failure (go.dev/issue/75804): one that names only
# the deadline and wrote no failing input is that, and nothing else is.
fuzz() {
	echo "fuzz $1 $2"
	status=0
	go test -trimpath -run='^$' -fuzz="^$2\$" -fuzztime="$time" "$1" </dev/null >"$log" 2>&1 || status=$?
	cat "$log"
	[ $status -eq 0 ] && return
	complaint=$(sed -n "/^--- FAIL: $2 /,/^FAIL\$/p" "$log" | sed '1d;$d')
	[ "$complaint" = "    context deadline exceeded" ] || exit $status
	echo "fuzz $1 $2: the deadline was reached, no input failed"
}

targets=$(go list -f '{{range .TestGoFiles}}{{$.Dir}}/{{.}} {{$.ImportPath}}
{{end}}{{range .XTestGoFiles}}{{$.Dir}}/{{.}} {{$.ImportPath}}
{{end}}' ./...)
echo "$targets" | while read -r file package; do
	[ -n "$file" ] || continue
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r name; do
		fuzz "$package" "$name"
	done
done

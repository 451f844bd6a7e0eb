#!/bin/sh
# Runs every fuzz target of the module for the time given, one after the other.
set -eu
time=$1
for dir in $(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do
	for target in $(git grep -h '^func Fuzz' -- "$dir/*_test.go" | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/' | sort -u); do
		echo "$dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$dir"
	done
done

#!/bin/sh
# manifests.sh SOURCE TARGET: copies the workspace's manifests, and puts an empty program in place of each crate's code.
# What is compiled there is the dependencies, so that Docker can keep them as a layer of their own.
set -eu
source=$1
target=$2

cd "$source"
find . -name target -prune -o \( -name Cargo.toml -o -name Cargo.lock \) -print | while read -r manifest; do
    folder=$(dirname "$manifest")
    mkdir -p "$target/$folder/src"
    cp "$manifest" "$target/$manifest"
    [ ! -e "$folder/src/lib.rs" ] || : >"$target/$folder/src/lib.rs"
    [ ! -e "$folder/src/main.rs" ] || echo 'fn main() {}' >"$target/$folder/src/main.rs"
done

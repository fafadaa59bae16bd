#!/bin/sh
# make-secrets.sh DIR: makes the secrets of a stack that are not there yet. What is there is kept, so bring your own by
# putting it there first. Readable for Troupe's group alone; other containers are given that group to read theirs.
set -eu
folder=$1
umask 027

# random BYTES: as one line of text.
random() {
    head -c "$1" /dev/urandom | base64 -w 0
    echo
}

# secret NAME BYTES: written beside its place and moved there, so that nobody ever reads half of one.
secret() {
    if [ -s "$folder/$1" ]; then
        echo "$folder/$1: there already" >&2
        return
    fi
    random "$2" >"$folder/.$1.new"
    chmod 0440 "$folder/.$1.new"
    mv "$folder/.$1.new" "$folder/$1"
    echo "$folder/$1: made" >&2
}

secret mesh.key 48
secret redis.password 33
secret admin.token 33

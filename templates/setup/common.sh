#!/bin/sh
# {{ label }} for {{ pool }}. Run it as often as you like: your other settings are kept, and what is changed is
# written down first. To take it back:  sh ~/.local/state/pool-server/{{ cli }}/undo.sh
set -eu
umask 077

STATE=${XDG_STATE_HOME:-$HOME/.local/state}/pool-server/{{ cli }}

say() { printf '%s\n' "$*"; }
fail() { printf 'pool-server: %s\n' "$*" >&2; exit 1; }

# A file that is a link stays one: what it points to is written.
target() {
    place=$1
    while [ -L "$place" ]; do
        link=$(readlink "$place")
        case $link in /*) place=$link ;; *) place=$(dirname "$place")/$link ;; esac
    done
    printf '%s\n' "$place"
}

# Standard input becomes the file, readable by you alone, whole or not at all.
put() {
    place=$(target "$1")
    mkdir -p "$(dirname "$place")"
    temporary=$(mktemp "$(dirname "$place")/.pool-server.XXXXXX")
    cat > "$temporary"
    chmod 600 "$temporary"
    mv -f "$temporary" "$place"
}

# The first sight of a file before the pool touched it, kept until the undo.
keep() {
    name=$(basename "$1")
    mkdir -p "$STATE"
    [ -e "$STATE/$name.before" ] || [ -e "$STATE/$name.absent" ] || {
        if [ -e "$1" ]; then cp -p "$1" "$STATE/$name.before"; chmod 600 "$STATE/$name.before"; else : > "$STATE/$name.absent"; fi
    }
}

warn_exported() {
    for name in "$@"; do
        if [ -n "$(printenv "$name" || :)" ]; then
            say "Careful: $name is set in this shell and would win over the pool. Remove it from your shell's start-up file, or run: unset $name"
        fi
    done
}

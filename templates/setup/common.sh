#!/bin/sh
# {{ label }} for {{ pool }}. Run it as often as you like: your other settings are kept, and what is changed is
# written down first. The last line says how to take it back.
set -eu
umask 077

say() { printf '%s\n' "$*"; }
fail() { printf 'pool-server: %s\n' "$*" >&2; exit 1; }

absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$PWD/$1" ;; esac; }

# A word of a shell that is $1, whatever is in it.
quoted() {
    POOL_WORD=$1 awk 'BEGIN {
        mark = sprintf("%c", 39); count = split(ENVIRON["POOL_WORD"], part, mark); word = part[1]
        for (i = 2; i <= count; i++) word = word mark "\\" mark mark part[i]
        printf "%s", mark word mark
    }'
}

# Where what was there before is kept: a folder for each place the settings may be ($1; usually $2).
state_of() {
    base=$(absolute "${XDG_STATE_HOME:-$HOME/.local/state}")/pool-server/{{ cli }}
    if [ "$1" != "$2" ]; then
        set -- $(printf '%s' "$1" | cksum)
        base=$base-$1
    fi
    printf '%s\n' "$base"
}

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

# Whether a file is again what was kept of it; only then may the copy go.
put_back() {
    put "$1" < "$2"
    cmp -s "$1" "$2" || fail "$1 could not be put back; what was there before is in $2"
    rm -f "$2"
}

nothing_to_undo() { fail "nothing to undo here: the pool has set nothing up in $1"; }

warn_exported() {
    for name in "$@"; do
        if [ -n "$(printenv "$name" || :)" ]; then
            say "Careful: $name is set in this shell and would win over the pool. Remove it from your shell's start-up file, or run: unset $name"
        fi
    done
}

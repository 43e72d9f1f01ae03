# What was claimed is looked at: the CLI is here, and the pool answers this key from this machine.
check() {
{% if unserved %}    say {{ sh(unserved) }}
{% end %}    command -v {{ program }} > /dev/null 2>&1 || say {{ sh("Careful: " + program + " is not installed here yet: " + install) }}
    if command -v curl > /dev/null 2>&1; then
        printf 'Authorization: Bearer %s\n' {{ sh(key) }} | curl -fsS -m 10 -o /dev/null -H @- -H 'Accept: application/json' {{ sh(base + "/status") }} 2> /dev/null ||
            say {{ sh("Careful: " + base + " does not answer this key from here now. Ask whoever runs the pool.") }}
    fi
}

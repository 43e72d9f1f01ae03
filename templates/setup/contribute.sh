#!/bin/sh
# Signs in to {{ label }} with its own program, in a home of its own that is removed afterwards, and gives {{ pool }} the
# sign-in. Nothing is installed, and a sign-in that is on this machine already is not touched.
set -eu
umask 077

say() { printf '%s\n' "$*"; }
fail() { printf 'pool-server: %s\n' "$*" >&2; exit 1; }

command -v curl > /dev/null 2>&1 || fail "this needs curl"
command -v {{ program }} > /dev/null 2>&1 || fail {{ sh("%s is not on this machine. Get it with: %s, then run the line again" % (label, install)) }}
{ : < /dev/tty; } 2> /dev/null || fail "this needs a terminal to sign in at"

home=$(mktemp -d "${TMPDIR:-/tmp}/pool-server.XXXXXX")
trap 'rm -rf "$home"' EXIT
trap 'exit 130' HUP INT TERM
remote=
if [ -n "${SSH_CONNECTION:-}${SSH_TTY:-}" ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then remote=yes; fi

say {{ sh("Signing in to %s. Its own pages ask you; the pool sees none of them." % label) }}
{% if notice %}say {{ sh("Know that %s." % notice) }}
{% end %}file=
{% if cli == "codex" %}printf 'cli_auth_credentials_store = "file"\n' > "$home/config.toml"
if [ -n "$remote" ]; then
    CODEX_HOME=$home codex login --device-auth < /dev/tty || fail "the sign-in did not come to its end"
else
    CODEX_HOME=$home codex login < /dev/tty || fail "the sign-in did not come to its end"
fi
file=$home/auth.json
{% elif cli == "claude" %}if CLAUDE_CONFIG_DIR=$home claude auth login < /dev/tty && [ -s "$home/.credentials.json" ]; then
    file=$home/.credentials.json
else
    say "Making a setup token instead, which lasts for up to a year."
    CLAUDE_CONFIG_DIR=$home claude setup-token < /dev/tty || fail "the sign-in did not come to its end"
    printf 'Paste the token it shows, then press Enter: '
    read -r token < /dev/tty
    printf '%s' "$token" > "$home/token"
    file=$home/token
fi
{% elif cli == "gemini" %}mkdir -p "$home/.gemini"
printf '{"security":{"auth":{"selectedType":"oauth-personal"},"folderTrust":{"enabled":false}}}' > "$home/.gemini/settings.json"
cd "$home"
say "Sign in when it asks, and leave it with /quit when it greets you."
if [ -n "$remote" ]; then
    NO_BROWSER=true GEMINI_CLI_HOME=$home gemini < /dev/tty || :
else
    GEMINI_CLI_HOME=$home gemini < /dev/tty || :
fi
file=$home/.gemini/oauth_creds.json
{% elif cli == "kimi" %}KIMI_CODE_HOME=$home KIMI_SHARE_DIR=$home kimi login < /dev/tty || fail "the sign-in did not come to its end"
for one in "$home"/credentials/kimi-code*.json; do file=$one; done
if [ -s "$file" ] && grep -q 'api\.kimi\.ai' "$home/config.toml" 2> /dev/null; then
    sed '1s/{/{"region":"ai",/' "$file" > "$home/of-kimi-ai"
    file=$home/of-kimi-ai
fi
{% else %}printf '{"security":{"auth":{"selectedType":"qwen-oauth"},"folderTrust":{"enabled":false}}}' > "$home/settings.json"
cd "$home"
if QWEN_HOME=$home qwen auth --help < /dev/null 2>&1 | grep -q removed; then
    fail "this qwen signs nobody in any more; add an API key instead"
fi
say "Sign in when it asks, and leave it with /quit when it greets you."
QWEN_HOME=$home qwen < /dev/tty || :
file=$home/oauth_creds.json
{% end %}[ -s "$file" ] || fail "the program left no sign-in behind; run the line again"

status=$(curl -sS -o "$home/answer" -w '%{http_code}' -H 'Content-Type: text/plain' --data-binary "@$file" {{ sh(url) }}) || fail "the pool could not be reached; run the line again"
case $status in
    201) say {{ sh("Done. %s has this sign-in; its copy here is removed." % pool) }} ;;
    202) say {{ sh("%s has it and asks its operator what becomes of it; the copy here is removed." % pool) }} ;;
    *)
        words=$(sed -n 's/.*"message":"\(\([^"\\]\|\\.\)*\)".*/\1/p' "$home/answer" | head -n 1)
        fail "the pool did not take it: ${words:-it answered $status}"
        ;;
esac

{% autoescape None %}{% include "common.sh" %}{% include "codex_edit.sh" %}{% include "check.sh" %}
CODEX=$(absolute "${CODEX_HOME:-$HOME/.codex}")
STATE=$(state_of "$CODEX" "$HOME/.codex")

# Top-level keys must stand before the first table, so the pool's lines go to the very top. Where you have a table of
# the same name already, they go into it; keys of yours with the same name are set aside.
apply_toml() {
    POOL_OPENAI={{ sh(toml(openai_url)) }} POOL_CHATGPT={{ sh(toml(chatgpt_url)) }} awk -v mark="$MARK" '
        function table_of(line) {
            sub(/\r$/, "", line)
            if (line !~ /^[ \t]*\[[^]]*\][ \t]*(#.*)?$/) return ""
            sub(/^[ \t]*\[[ \t]*/, "", line); sub(/[ \t]*\].*$/, "", line)
            return line
        }
        function key_of(line) {
            if (line !~ /^[ \t]*[A-Za-z0-9_."-]+[ \t]*=/) return ""
            sub(/^[ \t]*/, "", line); sub(/[ \t]*=.*$/, "", line); gsub(/"/, "", line)
            return line
        }
        function first(name) { sub(/\..*$/, "", name); return name }
        function off(name, dotted) {
            if (name == "analytics") print dotted "enabled = false" tail
            else { print dotted "apps = false" tail; print dotted "plugins = false" tail }
        }
        BEGIN {
            count = split("openai_base_url chatgpt_base_url model_provider forced_login_method " \
                "cli_auth_credentials_store analytics.enabled features.apps features.plugins", names, " ")
            for (i = 1; i <= count; i++) aside[names[i]] = 1
            split("analytics features", tables, " ")
        }
        {
            lines[NR] = $0
            name = table_of($0)
            if (name != "") { place = name; if (name != first(name)) below[first(name)] = 1; else table[name] = 1 }
            else if (place == "") { key = key_of($0); if (key == first(key)) inline[key] = 1; else dotted[first(key)] = 1 }
        }
        END {
            print mark ": begin"
            print "openai_base_url = " ENVIRON["POOL_OPENAI"]
            print "chatgpt_base_url = " ENVIRON["POOL_CHATGPT"]
            for (i = 1; i <= 2; i++) {
                name = tables[i]
                if (dotted[name] || !(table[name] || below[name] || inline[name])) off(name, name ".")
            }
            print mark ": end"
            place = ""
            for (n = 1; n <= NR; n++) {
                name = table_of(lines[n])
                if (name != "") {
                    place = name
                    print lines[n]
                    tail = "  " mark
                    if (name == "analytics" || name == "features") off(name, "")
                    tail = ""
                    continue
                }
                key = key_of(lines[n])
                full = place == "" ? key : place "." key
                if (key != "" && (full in aside)) print mark " kept: " lines[n]
                else print lines[n]
            }
            for (i = 1; i <= 2; i++) {
                name = tables[i]
                if (below[name] && !(table[name] || dotted[name])) {
                    print mark ": begin"; print "[" name "]"; off(name, ""); print mark ": end"
                }
            }
        }
    '
}

set_up() {
    write_undo
    keep "$CODEX/config.toml"
    : > "$STATE/work"
    if [ -f "$CODEX/config.toml" ]; then strip_toml "$CODEX/config.toml" > "$STATE/work"; fi
    apply_toml < "$STATE/work" > "$STATE/work.new"
    put "$CODEX/config.toml" < "$STATE/work.new"
    if [ -f "$CODEX/auth.json" ] && ! is_ours "$CODEX/auth.json" && [ -e "$STATE/auth.json.before" ]; then
        mv "$STATE/auth.json.before" "$STATE/auth.json.older"
    fi
    is_ours "$CODEX/auth.json" || keep "$CODEX/auth.json"
    printf '%s\n' {{ sh(auth_json) }} | put "$CODEX/auth.json"
    rm -f "$STATE/work" "$STATE/work.new"
    say {{ sh("Codex now goes through " + pool + ". Try it:  " + then) }}
    say "Your former sign-in and settings are kept in $STATE; take everything back with:  sh $(quoted "$STATE/undo.sh")"
    check
    warn_exported CODEX_API_KEY CODEX_ACCESS_TOKEN
}

# The undo knows its places by itself: it may run in another shell, with other variables.
write_undo() {
    {
        printf '%s\n' '#!/bin/sh' "STATE=$(quoted "$STATE")" "CODEX=$(quoted "$CODEX")"
        cat <<'POOL_SERVER_UNDO'
{% include "common.sh" %}{% include "codex_edit.sh" %}
[ -e "$STATE/config.toml.before" ] || [ -e "$STATE/config.toml.absent" ] || nothing_to_undo "$CODEX"
if [ -f "$CODEX/config.toml" ]; then
    strip_toml "$CODEX/config.toml" > "$STATE/work"
    put "$CODEX/config.toml" < "$STATE/work"
    if ! [ -s "$CODEX/config.toml" ] && [ -e "$STATE/config.toml.absent" ]; then rm -f "$CODEX/config.toml"; fi
elif [ -e "$STATE/config.toml.before" ]; then
    put_back "$CODEX/config.toml" "$STATE/config.toml.before"
fi
if is_ours "$CODEX/auth.json"; then
    if [ -e "$STATE/auth.json.before" ]; then put_back "$CODEX/auth.json" "$STATE/auth.json.before"; else rm -f "$CODEX/auth.json"; fi
elif ! [ -e "$CODEX/auth.json" ] && [ -e "$STATE/auth.json.before" ]; then
    put_back "$CODEX/auth.json" "$STATE/auth.json.before"
fi
say "Codex is as it was before the pool."
{% if key_ends %}say {{ sh(key_ends) }}
{% end %}rm -f "$STATE/work" "$STATE/config.toml.before" "$STATE/config.toml.absent" "$STATE/auth.json.absent" "$STATE/undo.sh"
for kept in "$STATE/auth.json.before" "$STATE/auth.json.older"; do
    if [ -e "$kept" ]; then say "A sign-in that was here earlier is kept in $kept"; fi
done
rmdir "$STATE" 2> /dev/null || :
POOL_SERVER_UNDO
    } | put "$STATE/undo.sh"
}

case ${1:-} in
    undo)
        [ -e "$STATE/undo.sh" ] || nothing_to_undo "$CODEX"
        exec sh "$STATE/undo.sh" ;;
    *) set_up ;;
esac

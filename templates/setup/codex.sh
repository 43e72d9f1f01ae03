{% autoescape None %}{% include "common.sh" %}{% include "codex_edit.sh" %}
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
    say "Your former sign-in and settings are kept in $STATE; take everything back with:  sh $STATE/undo.sh"
    warn_exported CODEX_API_KEY CODEX_ACCESS_TOKEN
}

write_undo() {
    put "$STATE/undo.sh" <<'POOL_SERVER_UNDO'
{% include "common.sh" %}{% include "codex_edit.sh" %}
if [ -f "$CODEX/config.toml" ]; then
    strip_toml "$CODEX/config.toml" > "$STATE/work"
    put "$CODEX/config.toml" < "$STATE/work"
    if [ -e "$STATE/config.toml.absent" ] && ! [ -s "$CODEX/config.toml" ]; then rm -f "$CODEX/config.toml"; fi
fi
if is_ours "$CODEX/auth.json"; then
    if [ -e "$STATE/auth.json.before" ]; then put "$CODEX/auth.json" < "$STATE/auth.json.before"; else rm -f "$CODEX/auth.json"; fi
fi
rm -rf "$STATE"
say "Codex is as it was before the pool."
POOL_SERVER_UNDO
}

case ${1:-} in
    undo) write_undo; exec sh "$STATE/undo.sh" ;;
    *) set_up ;;
esac

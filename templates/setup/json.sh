{% autoescape None %}{% include "common.sh" %}{% include "json_edit.sh" %}{% include "check.sh" %}
FILE=$(absolute {{ file_sh }})
{% if dotenv_sh %}DOTENV=$(absolute {{ dotenv_sh }})
{% end %}STATE=$(state_of "$FILE" {{ usual_sh }})
{% if dotenv_sh %}
apply_dotenv() {
    awk -v names="$NAMES" '
        BEGIN { split(names, list, " "); for (i in list) ours[list[i]] = 1 }
        {
            line = $0
            sub(/^[ \t]*(export[ \t]+)?/, "", line); sub(/[ \t]*=.*$/, "", line)
            if (line in ours) print "# pool-server kept: " $0; else print
        }
    '
    printf '%s\n' '# pool-server: begin'{% for name, value in dotenv.items() %}{% if value is not None %} {{ sh(name + "=" + value) }}{% end %}{% end %} '# pool-server: end'
}
{% end %}
set_up() {
    write_undo
    keep "$FILE"
    edit_json {{ sh(edit) }}
{% if dotenv_sh %}    keep "$DOTENV"
    : > "$STATE/work"
    if [ -f "$DOTENV" ]; then strip_dotenv "$DOTENV" > "$STATE/work"; fi
    apply_dotenv < "$STATE/work" > "$STATE/work.new"
    put "$DOTENV" < "$STATE/work.new"
    rm -f "$STATE/work" "$STATE/work.new"
{% end %}    say {{ sh(label + " now goes through " + pool + ". Try it:  " + then) }}
{% for line in hints %}    say {{ sh(line) }}
{% end %}    say "What was there before is kept in $STATE; take everything back with:  sh $(quoted "$STATE/undo.sh")"
    check
    warn_exported {{ " ".join(exported) }}
}

# The undo knows its places by itself: it may run in another shell, with other variables.
write_undo() {
    {
        printf '%s\n' '#!/bin/sh' "STATE=$(quoted "$STATE")" "FILE=$(quoted "$FILE")"{% if dotenv_sh %} "DOTENV=$(quoted "$DOTENV")"{% end %}

        cat <<'POOL_SERVER_UNDO'
{% include "common.sh" %}{% include "json_edit.sh" %}
[ -e "$STATE/journal.json" ] || nothing_to_undo "$FILE"
if [ -e "$FILE" ] || ! [ -e "$STATE/$(basename "$FILE").before" ]; then edit_json '"undo"'
else put_back "$FILE" "$STATE/$(basename "$FILE").before"; fi
{% if dotenv_sh %}
if [ -f "$DOTENV" ]; then
    strip_dotenv "$DOTENV" > "$STATE/work"
    put "$DOTENV" < "$STATE/work"
    if ! [ -s "$DOTENV" ] && [ -e "$STATE/$(basename "$DOTENV").absent" ]; then rm -f "$DOTENV"; fi
elif [ -e "$STATE/$(basename "$DOTENV").before" ]; then
    put_back "$DOTENV" "$STATE/$(basename "$DOTENV").before"
fi
{% end %}
rm -rf "$STATE"
say {{ sh(label + " is as it was before the pool.") }}
{% if key_ends %}say {{ sh(key_ends) }}
{% end %}POOL_SERVER_UNDO
    } | put "$STATE/undo.sh"
}

case ${1:-} in
    undo)
        [ -e "$STATE/undo.sh" ] || nothing_to_undo "$FILE"
        exec sh "$STATE/undo.sh" ;;
    *) set_up ;;
esac

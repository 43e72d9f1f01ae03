{% autoescape None %}{% include "common.sh" %}{% include "json_edit.sh" %}
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
{% end %}    say "What was there before is kept in $STATE; take everything back with:  sh $STATE/undo.sh"
    warn_exported {{ " ".join(exported) }}
}

write_undo() {
    put "$STATE/undo.sh" <<'POOL_SERVER_UNDO'
{% include "common.sh" %}{% include "json_edit.sh" %}
[ -e "$STATE/journal.json" ] && edit_json '"undo"'
{% if dotenv_sh %}
if [ -f "$DOTENV" ]; then
    strip_dotenv "$DOTENV" > "$STATE/work"
    put "$DOTENV" < "$STATE/work"
    if ! [ -s "$DOTENV" ] && [ -e "$STATE/$(basename "$DOTENV").absent" ]; then rm -f "$DOTENV"; fi
fi
{% end %}
rm -rf "$STATE"
say {{ sh(label + " is as it was before the pool.") }}
POOL_SERVER_UNDO
}

case ${1:-} in
    undo) write_undo; exec sh "$STATE/undo.sh" ;;
    *) set_up ;;
esac

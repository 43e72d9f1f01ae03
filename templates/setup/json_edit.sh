# Change the fields named in $1 (or "undo") with whatever can read JSON here.
edit_json() {
    POOL_FILE=$FILE POOL_JOURNAL=$STATE/journal.json POOL_EDIT=$1
    export POOL_FILE POOL_JOURNAL POOL_EDIT
    if command -v node > /dev/null 2>&1; then
        node - <<'POOL_SERVER_MERGE'
{% include "merge.js" %}
POOL_SERVER_MERGE
    elif command -v python3 > /dev/null 2>&1; then
        python3 - <<'POOL_SERVER_MERGE'
{% include "merge.py" %}
POOL_SERVER_MERGE
    else
        fail "neither node nor python3 is here to change $FILE without harm; set it up by hand, as the page shows"
    fi
    unset POOL_FILE POOL_JOURNAL POOL_EDIT
}
{% if dotenv_sh %}
NAMES={{ sh(" ".join(dotenv)) }}

# The file without the pool's own lines; your lines that were set aside come back.
strip_dotenv() {
    awk '
        /^# pool-server: begin/ { skip = 1; next }
        /^# pool-server: end/ { skip = 0; next }
        skip { next }
        /^# pool-server kept: / { print substr($0, 21); next }
        { print }
    ' "$1"
}
{% end %}

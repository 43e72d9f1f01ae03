# The same as merge.js, for machines without node: same variables, same journal.
import json, os, sys

FILE, JOURNAL, EDIT = os.environ["POOL_FILE"], os.environ["POOL_JOURNAL"], json.loads(os.environ["POOL_EDIT"])


def stop(words):
    sys.exit("pool-server: " + words)


def read(name, otherwise):
    try:
        with open(name, encoding="utf-8-sig") as source:
            text = source.read()
    except FileNotFoundError:
        return otherwise
    if not text.strip():
        return otherwise
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        stop(name + " is not plain JSON (comments?); nothing was changed. Put the lines in by hand.")
    return value


def write(name, value):
    replace(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def before(value):
    """The file's own bytes of before the pool, where they say what it says now."""
    try:
        with open(os.path.join(os.path.dirname(JOURNAL), os.path.basename(FILE) + ".before"), "rb") as source:
            kept = source.read()
        return kept if json.loads(kept.decode("utf-8-sig")) == value else None
    except (OSError, ValueError):
        return None


def replace(name, data):
    place = os.path.realpath(name)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    temporary = "%s.pool-server-%d" % (place, os.getpid())
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
    os.replace(temporary, place)


def find(root, keys, make):
    place = root
    for key in keys[:-1]:
        if key not in place:
            if not make:
                return None
            place[key] = {}
        if not isinstance(place[key], dict):
            if not make:
                return None
            stop("%s cannot be set, because %s is not an object; nothing was changed." % (".".join(keys), key))
        place = place[key]
    return place


def look(root, keys):
    place = find(root, keys, False)
    if place is not None and keys[-1] in place:
        return {"there": True, "value": place[keys[-1]]}
    return {"there": False}


def change(root, keys, wanted):
    if wanted["there"]:
        find(root, keys, True)[keys[-1]] = wanted["value"]
        return
    place = find(root, keys, False)
    if place is not None:
        place.pop(keys[-1], None)
        if len(keys) > 1 and not place:
            change(root, keys[:-1], {"there": False})


root = read(FILE, {})
log = read(JOURNAL, {"absent": not os.path.exists(FILE), "fields": []})
if EDIT == "undo":
    for field in log["fields"]:
        if look(root, field["keys"]) == field["ours"]:
            change(root, field["keys"], field["was"])
    if log["absent"] and not root:
        if os.path.exists(FILE):
            os.remove(FILE)
    elif os.path.exists(FILE):
        kept = before(root)
        if kept is None:
            write(FILE, root)
        else:
            replace(FILE, kept)
else:
    wishes = [(keys, {"there": True, "value": value}) for keys, value in EDIT["set"]]
    wishes += [(keys, {"there": False}) for keys in EDIT["remove"]]
    for keys, ours in wishes:
        now = look(root, keys)
        known = next((field for field in log["fields"] if field["keys"] == keys), None)
        if known is None:
            log["fields"].append({"keys": keys, "was": now, "ours": ours})
        else:
            if now != known["ours"]:
                known["was"] = now
            known["ours"] = ours
        if now != ours:
            change(root, keys, ours)
    write(JOURNAL, log)
    write(FILE, root)

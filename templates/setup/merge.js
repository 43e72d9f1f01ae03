// Sets and takes out fields of one JSON file, and remembers what was there. Everything else in it stays as it is.
// Reads POOL_FILE, POOL_JOURNAL and POOL_EDIT = {"set": [[path, value], ...], "remove": [path, ...]} or "undo".
const fs = require("fs");
const path = require("path");
const own = (place, key) => Object.prototype.hasOwnProperty.call(place, key);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function read(file, otherwise) {
  let text;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch {
    return otherwise;
  }
  if (text.trim() === "") return otherwise;
  try {
    const value = JSON.parse(text.replace(/^\uFEFF/, ""));
    if (isObject(value)) return value;
  } catch {}
  console.error(`pool-server: ${file} is not plain JSON (comments?); nothing was changed. Put the lines in by hand.`);
  process.exit(1);
}

function write(file, value) {
  replace(file, `${JSON.stringify(value, null, 2)}\n`);
}

function replace(file, text) {
  let place = file;
  try {
    place = fs.realpathSync(file);
  } catch {}
  fs.mkdirSync(path.dirname(place), { recursive: true });
  const temporary = `${place}.pool-server-${process.pid}`;
  fs.writeFileSync(temporary, text, { mode: 0o600 });
  fs.renameSync(temporary, place);
}

function find(root, keys, make) {
  let place = root;
  for (const key of keys.slice(0, -1)) {
    if (!own(place, key)) {
      if (!make) return null;
      place[key] = {};
    }
    if (!isObject(place[key])) {
      if (!make) return null;
      console.error(`pool-server: ${keys.join(".")} cannot be set, because ${key} is not an object; nothing was changed.`);
      process.exit(1);
    }
    place = place[key];
  }
  return place;
}

function look(root, keys) {
  const place = find(root, keys, false);
  const last = keys[keys.length - 1];
  return place && own(place, last) ? { there: true, value: place[last] } : { there: false };
}

function change(root, keys, wanted) {
  const last = keys[keys.length - 1];
  if (wanted.there) {
    find(root, keys, true)[last] = wanted.value;
    return;
  }
  const place = find(root, keys, false);
  if (place) delete place[last];
  for (let length = keys.length - 1; length > 0 && place; length -= 1) {
    const parent = look(root, keys.slice(0, length));
    if (!parent.there || !isObject(parent.value) || Object.keys(parent.value).length) break;
    change(root, keys.slice(0, length), { there: false });
  }
}

// The file's own bytes of before the pool, where they say what it says now.
function before(value) {
  const ordered = (one) => (isObject(one) ? Object.fromEntries(Object.keys(one).sort().map((key) => [key, ordered(one[key])])) : Array.isArray(one) ? one.map(ordered) : one);
  try {
    const bytes = fs.readFileSync(path.join(path.dirname(journal), `${path.basename(file)}.before`));
    if (same(ordered(JSON.parse(bytes.toString("utf8").replace(/^\uFEFF/, ""))), ordered(value))) return bytes;
  } catch {}
  return null;
}

const file = process.env.POOL_FILE;
const journal = process.env.POOL_JOURNAL;
const edit = JSON.parse(process.env.POOL_EDIT);
const root = read(file, {});
const log = read(journal, { absent: !fs.existsSync(file), fields: [] });
if (edit === "undo") {
  for (const field of log.fields) if (same(look(root, field.keys), field.ours)) change(root, field.keys, field.was);
  if (log.absent && !Object.keys(root).length) fs.rmSync(file, { force: true });
  else if (fs.existsSync(file)) {
    const bytes = before(root);
    if (bytes) replace(file, bytes);
    else write(file, root);
  }
} else {
  const wishes = [
    ...edit.set.map(([keys, value]) => [keys, { there: true, value }]),
    ...edit.remove.map((keys) => [keys, { there: false }]),
  ];
  for (const [keys, ours] of wishes) {
    const now = look(root, keys);
    const known = log.fields.find((field) => same(field.keys, keys));
    if (!known) log.fields.push({ keys, was: now, ours });
    else {
      if (!same(now, known.ours)) known.was = now;
      known.ours = ours;
    }
    if (!same(now, ours)) change(root, keys, ours);
  }
  write(journal, log);
  write(file, root);
}

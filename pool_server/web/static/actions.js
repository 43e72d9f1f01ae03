// Buttons and forms that change something. The HTML says what to call; this asks once, calls, and shows what came back.
// data-refreshes="ids of the parts that show what was changed".
//   <form method="post" action="/admin/…" data-call="PATCH /admin/…" data-ask="What will happen." data-label="Do it">
// with named fields; data-type="number|percent|limit|limit-list", data-optional on a field. data-changes: only fields whose value
// is another than the page came with are sent. Without this script the form itself is
// sent, with what its hidden fields say. For what follows: data-after="reload" or an address, data-done="Words.", data-tells="test",
// data-after="account" leads to the account that was added, data-waits="Words." stand there until the answer comes,
// data-shows-key="id of the place where a new key or code is shown", data-undo="POST /admin/…" with data-done: the words
// stand in a toast with a button that calls it.
import { call } from "./http.js";
import { refreshParts } from "./live.js";
import { toast } from "./toast.js";
import { t } from "./words.js";

function ask(words, label) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    const text = document.createElement("p");
    text.textContent = words;
    const row = document.createElement("form");
    row.method = "dialog";
    row.className = "actions";
    for (const [value, name, look] of [["yes", label, "primary"], ["no", t("Cancel"), ""]]) {
      const button = document.createElement("button");
      Object.assign(button, { value, textContent: name, className: look, autofocus: value === "no" });
      row.append(button);
    }
    dialog.append(text, row);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// What a field sends: a limit that is left empty is not sent at all, one whose "none" is ticked is null.
function fieldValue(field) {
  if (field.type === "checkbox") return field.checked;
  if (field.dataset.type === "boolean") return field.value === "true";
  const text = field.value.trim();
  const list = () => text.split(/[\s,]+/);
  switch (field.dataset.type) {
    case "number":
      return text === "" || text === "null" ? null : Number(text);
    case "percent":
      return text === "" ? null : Number((Number(text) / 100).toPrecision(12));
    case "limit":
      if (field.closest("label").querySelector("[data-none]")?.checked) return null;
      return text === "" ? undefined : Number(text);
    case "limit-list":
      return text === "" ? undefined : list();
    default:
      return text;
  }
}

// "limits.tokens_day" becomes {limits: {tokens_day: …}}; an empty optional field is left out.
export function formBody(form) {
  const body = "limits" in form.dataset ? { limits: {} } : {};
  for (const field of form.querySelectorAll("[name]")) {
    if (/^(_|none\.)/.test(field.name)) continue; // what a form without scripts would say
    if ("changes" in form.dataset ? field.value === field.defaultValue : field.dataset.optional !== undefined && field.value.trim() === "") continue;
    const path = field.name.split(".");
    const last = path.pop();
    let place = body;
    for (const part of path) place = place[part] ??= {};
    const value = fieldValue(field);
    if (value !== undefined) place[last] = value;
  }
  return body;
}

function outlet(element) {
  const named = element.dataset.outlet && document.getElementById(element.dataset.outlet);
  if (named) return named;
  const scope = element.closest(".actions") ?? element;
  let place = scope.nextElementSibling;
  if (!place?.matches("[data-said]")) {
    place = document.createElement("p");
    place.dataset.said = "";
    place.setAttribute("role", "status");
    scope.after(place);
  }
  return place;
}

function say(element, words, tone) {
  const place = outlet(element);
  place.className = `note ${tone} small`;
  place.textContent = words;
}

// What the operator's test of an account brought back, in words.
function testWords(result) {
  const took = `${Math.round(result.ms)} ms`;
  if (result.ok) return t("It works: the provider answered {status} in {took}.", { status: result.status, took });
  const why = result.message || t("no reason given");
  return t("It does not work: {why} (answer {status}, {took}).", { why, status: result.status || t("none"), took });
}

function after(element, value) {
  const { showsKey, tells, done } = element.dataset;
  if (showsKey) showKey(document.getElementById(showsKey), value.url ?? value.key ?? value.code ?? value.token, value);
  if (tells === "test") say(element, testWords(value.result), value.result.ok ? "good" : "bad");
  const parts = element.dataset.refreshes?.split(" ") ?? [];
  if (element.dataset.undo) toast(done, () => undo(element.dataset.undo, parts));
  else if (done) say(element, done, "good");
  if (parts.length) refreshParts(parts);
  const next = element.dataset.after;
  if (next === "reload") location.reload();
  else if (next === "account") location.assign(`/accounts?added=${encodeURIComponent(value.id)}`);
  else if (next === "sign-in") location.assign(`/sign-ins/${value.id}`);
  else if (next === "removed") location.assign(`/accounts?removed=${encodeURIComponent(value.removed)}`);
  else if (next) location.assign(next);
}

async function undo(what, parts) {
  const [method, path] = what.split(" ");
  await call(method, path, {});
  await refreshParts(parts);
}

// A key or code is shown where the page has a place for it, and put into the lines that wait for one.
function showKey(place, key, { message, qr } = {}) {
  place.querySelector("code").textContent = key;
  const text = place.querySelector("[data-message]");
  if (text) text.textContent = message ?? "";
  const drawn = qr && new DOMParser().parseFromString(qr, "image/svg+xml").documentElement;
  place.querySelector("[data-qr]")?.replaceChildren(...(drawn ? [drawn] : []));
  place.hidden = false;
  place.dataset.shown = "";
  for (const code of document.querySelectorAll("code[data-keyed]")) {
    code.textContent = code.textContent.replaceAll("YOUR-POOL-KEY", key);
  }
  place.scrollIntoView({ block: "nearest" });
}

async function run(element, body) {
  const [method, path] = element.dataset.call.split(" ");
  const label = element.dataset.label ?? element.textContent.trim();
  if (element.dataset.ask && !(await ask(element.dataset.ask, label))) return;
  const buttons = [...element.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  if (element.dataset.waits) say(element, element.dataset.waits, "");
  try {
    const value = await call(method, path, body);
    after(element, value);
  } catch (error) {
    say(element, error.message, "bad");
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

export function startActions() {
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-call]");
    if (!form) return;
    event.preventDefault();
    run(form, formBody(form));
  });
}

// Buttons and forms that change something. The HTML says what to call; this asks once, calls, and shows what came back.
//   <button data-call="POST /admin/…" data-ask="What will happen." data-after="reload|show">
//   <form data-call="POST /admin/…" data-after="…"> with named fields; data-type="number|list|null-number" on a field
import { call } from "./http.js";

function ask(words, label) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    const text = document.createElement("p");
    text.textContent = words;
    const row = document.createElement("form");
    row.method = "dialog";
    row.className = "actions";
    for (const [value, name, look] of [["yes", label, "primary"], ["no", "Leave it", ""]]) {
      const button = document.createElement("button");
      Object.assign(button, { value, textContent: name, className: look });
      row.append(button);
    }
    dialog.className = "stack-dialog";
    dialog.append(text, row);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function fieldValue(field) {
  const text = field.type === "checkbox" ? field.checked : field.value.trim();
  if (typeof text === "boolean") return text;
  const type = field.dataset.type;
  if (type === "number") return text === "" ? null : Number(text);
  if (type === "list") return text === "" ? null : text.split(/[\s,]+/);
  return text;
}

// "limits.tokens_day" becomes {limits: {tokens_day: …}}; an empty optional field is left out.
export function formBody(form) {
  const body = {};
  for (const field of form.querySelectorAll("[name]")) {
    if (field.dataset.optional !== undefined && field.value.trim() === "") continue;
    const path = field.name.split(".");
    const last = path.pop();
    let place = body;
    for (const part of path) place = place[part] ??= {};
    place[last] = fieldValue(field);
  }
  return body;
}

function outlet(element) {
  const named = element.dataset.outlet && document.getElementById(element.dataset.outlet);
  if (named) return named;
  const scope = element.closest("form, .actions") ?? element;
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

async function run(element, body) {
  const [method, path] = element.dataset.call.split(" ");
  const label = element.dataset.label ?? element.textContent.trim();
  if (element.dataset.ask && !(await ask(element.dataset.ask, label))) return;
  const buttons = element.matches("button") ? [element] : [...element.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  try {
    const value = await call(method, path, body);
    document.dispatchEvent(new CustomEvent("called", { detail: { element, value } }));
    if (element.dataset.after === "reload") location.reload();
    else if (element.dataset.done) say(element, element.dataset.done, "good");
  } catch (error) {
    say(element, error.message, "bad");
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

export function startActions() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-call]");
    if (button) run(button, button.dataset.body ? JSON.parse(button.dataset.body) : {});
  });
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-call]");
    if (!form) return;
    event.preventDefault();
    run(form, formBody(form));
  });
}

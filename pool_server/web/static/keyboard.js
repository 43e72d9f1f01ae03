// Keys for those who use the pages all day: "/" searches, "g" and a letter goes to a page, "?" shows what there is. Nothing
// is taken from somebody who types, nor from the browser's own shortcuts.
import { t } from "./words.js";

const PAUSE_MS = 1500; // between "g" and its letter
let went = 0;

function busy(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog, [contenteditable]");
}

function places() {
  return new Map([...document.querySelectorAll("nav a[data-go]")].map((link) => [link.dataset.go, link]));
}

function help() {
  if (document.querySelector("dialog:popover-open")) return;
  const dialog = document.createElement("dialog");
  const heading = document.createElement("h2");
  heading.textContent = t("Keyboard");
  const list = document.createElement("dl");
  list.className = "facts";
  const rows = [...places()].map(([letter, link]) => [`g ${letter}`, link.textContent]);
  if (document.querySelector("input[type=search]")) rows.unshift(["/", t("Search")]);
  for (const [keys, words] of [...rows, ["Enter", t("Open or close a row")], ["?", t("This list")]]) {
    const term = document.createElement("dt");
    const kbd = document.createElement("kbd");
    kbd.textContent = keys;
    term.append(kbd);
    const said = document.createElement("dd");
    said.textContent = words;
    list.append(term, said);
  }
  const close = document.createElement("button");
  Object.assign(close, { type: "button", textContent: t("Close"), autofocus: true });
  close.addEventListener("click", () => dialog.hidePopover());
  dialog.append(heading, list, close);
  // No modal one: to make a long page inert takes longer than to read a line of this.
  dialog.popover = "auto";
  dialog.addEventListener("toggle", (event) => event.newState === "closed" && dialog.remove());
  document.body.append(dialog);
  dialog.showPopover();
}

export function startKeyboard() {
  document.addEventListener("keydown", (event) => {
    if (busy(event)) return;
    const then = went;
    went = 0;
    if (event.timeStamp - then < PAUSE_MS && places().has(event.key)) {
      places().get(event.key).click();
    } else if (event.key === "g") {
      went = event.timeStamp;
    } else if (event.key === "?") {
      help();
    } else if (event.key === "/") {
      const field = document.querySelector("input[type=search]");
      if (!field) return;
      event.preventDefault();
      field.focus();
    }
  });
}

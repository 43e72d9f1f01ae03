// One line at the foot of the window that says what was done, with a button that undoes it where there is an `undo`;
// what cannot be undone is told until it is closed. It leaves by itself after a
// while, but never while it is pointed at or has the focus.
import { t } from "./words.js";

const STAYS_MS = 10_000;
let shown = null;

export function toast(words, undo) {
  shown?.remove();
  const box = document.createElement("div");
  box.className = "toast";
  box.setAttribute("role", "status");
  const text = document.createElement("span");
  text.textContent = words;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = undo ? t("Undo") : t("Close");
  button.addEventListener("click", async () => {
    if (!undo) return box.remove();
    button.disabled = true;
    try {
      await undo();
      box.remove();
    } catch (error) {
      text.textContent = error.message;
      button.remove();
    }
  });
  box.append(text, button);
  document.body.append(box);
  shown = box;
  const leave = () => {
    if (box.matches(":hover, :focus-within")) setTimeout(leave, 1000);
    else box.remove();
  };
  if (undo) setTimeout(leave, STAYS_MS);
}

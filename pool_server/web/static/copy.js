// Copy buttons: the text beside the button goes to the clipboard, and the button says so.
import { t } from "./words.js";

async function put(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Plain http on a name of its own is no secure context: the old way still works there.
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("copy failed");
}

export function startCopy() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    try {
      await put(code.textContent);
      button.textContent = t("Copied");
      document.dispatchEvent(new CustomEvent("copied", { detail: code }));
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = t("Press Ctrl+C");
    }
    setTimeout(() => {
      button.textContent = t("Copy");
    }, 2500);
  });
}

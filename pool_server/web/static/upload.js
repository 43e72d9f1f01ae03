// A credential file that is chosen or dropped becomes the text of its field; nothing is sent before the form is.
import { t } from "./words.js";

const LARGEST = 1 << 20;

async function take(file, field) {
  if (!file) return;
  if (file.size > LARGEST) {
    field.setCustomValidity(t("That file is larger than 1 MiB; a credential file is not."));
    field.reportValidity();
    return;
  }
  field.setCustomValidity("");
  field.value = await file.text();
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

export function startUpload() {
  for (const chooser of document.querySelectorAll("input[data-into]")) {
    const field = chooser.form.elements[chooser.dataset.into];
    chooser.closest("label").hidden = false;
    chooser.addEventListener("change", () => take(chooser.files[0], field));
    field.addEventListener("input", () => field.setCustomValidity(""));
  }
  document.addEventListener("dragover", (event) => {
    if (event.target.closest("[data-drop]")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const field = event.target.closest("[data-drop]");
    if (!field || !event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0], field);
  });
}

// Entry of every page: makes what the server has written live. Each module looks for its own marks and does nothing
// where there are none.
import { startActions } from "./actions.js";
import { startCopy } from "./copy.js";
import { startKeyboard } from "./keyboard.js";
import { startLive } from "./live.js";
import { startSetup } from "./setup.js";
import { startSignIn } from "./sign_in.js";
import { startTheme } from "./theme.js";
import { refreshTimes, startTimes } from "./times.js";
import { startUpload } from "./upload.js";

// A page that answers a form stands under the form's address; reloading it must not send the form again.
const place = document.querySelector("[data-location]");
if (place) history.replaceState(null, "", place.dataset.location);

// Where the navigation is wider than the window, it shows where one is.
for (const one of document.querySelectorAll(".masthead nav [aria-current]")) {
  const row = one.closest("nav");
  row.scrollLeft += one.getBoundingClientRect().left - row.getBoundingClientRect().left - (row.clientWidth - one.offsetWidth) / 2;
}

for (const box of document.querySelectorAll("[data-show]")) {
  const field = box.form.elements[box.dataset.show];
  box.closest("label").hidden = false;
  box.addEventListener("change", () => {
    field.type = box.checked ? "text" : "password";
  });
}

// Ticks all boxes of a list; half a tick where some are.
for (const all of document.querySelectorAll("[data-ticks]")) {
  const boxes = [...document.getElementById(all.dataset.ticks).querySelectorAll("input[type=checkbox]")];
  const tell = () => {
    const ticked = boxes.filter((box) => box.checked).length;
    Object.assign(all, { checked: ticked === boxes.length, indeterminate: ticked > 0 && ticked < boxes.length });
  };
  all.closest("label").hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
  });
  for (const box of boxes) box.addEventListener("change", tell);
  tell();
}

// A row of a long list brings its particulars when it is opened.
document.addEventListener(
  "toggle",
  async (event) => {
    const body = event.target.open ? event.target.querySelector(":scope > [data-fetch]") : null;
    if (!body) return;
    const answer = await fetch(body.dataset.fetch, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    body.removeAttribute("data-fetch");
    body.replaceChildren(...page.getElementById(event.target.id).querySelector(".body").childNodes);
    refreshTimes(body);
  },
  true,
);

// A row whose heading leads somewhere leads there wherever it is clicked: but for what has a use of its own, for a word
// that is being marked, and for a key that opens a tab.
document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  if (event.target.closest("a, button, input, select, textarea, label, summary, details, form") || String(getSelection())) return;
  event.target.closest("tr")?.querySelector(":scope > th[scope=row] > a")?.click();
});

startTheme();
startTimes();
startCopy();
startSetup();
startActions();
startUpload();
startSignIn();
startKeyboard();
startLive();

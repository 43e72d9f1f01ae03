// Light, dark, or as the system has it; remembered in a cookie, so that the server writes the right page at once.
import { t } from "./words.js";

const NAMES = { "": t("System"), light: t("Light"), dark: t("Dark") };
const NEXT = { "": "light", light: "dark", dark: "" };

export function startTheme() {
  const button = document.querySelector("[data-theme-switch]");
  if (!button) return;
  const show = () => {
    const name = NAMES[document.documentElement.dataset.theme ?? ""];
    button.textContent = `◐ ${name}`;
    button.setAttribute("aria-label", t("Colours: {name}. Change", { name }));
    button.title = t("Light, dark, or as the system has it");
  };
  button.addEventListener("click", () => {
    const theme = NEXT[document.documentElement.dataset.theme ?? ""];
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=strict`;
    show();
    document.dispatchEvent(new CustomEvent("themechange"));
  });
  show();
  button.hidden = false;
}

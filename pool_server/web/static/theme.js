// Light, dark, or as the system has it; remembered in a cookie, so that the server writes the right page at once.
const NAMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const NEXT = { "": "light", light: "dark", dark: "" };

export function startTheme() {
  const button = document.querySelector("[data-theme-switch]");
  if (!button) return;
  const show = () => {
    button.textContent = NAMES[document.documentElement.dataset.theme ?? ""];
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

// The set-up tabs: one client at a time, the lines for the visitor's own system. Without this script all are shown.
import { call } from "./http.js";
import { t } from "./words.js";

function choose(tabs, tab, focus) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", String(chosen));
    each.tabIndex = chosen ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
}

function startTabs(root) {
  const tabs = [...root.querySelectorAll("[role=tab]")];
  const wanted = new URL(location.href).searchParams.get("client");
  root.querySelector("[role=tablist]").hidden = false;
  for (const title of root.querySelectorAll("[data-panel-title]")) title.classList.add("visually-hidden");
  choose(tabs, tabs.find((tab) => tab.id === `tab-${wanted}`) ?? tabs[0], false);
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => {
      choose(tabs, tab, false);
      const url = new URL(location.href);
      url.searchParams.set("client", tab.id.slice(4));
      history.replaceState(null, "", url);
    });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose(tabs, tabs[(index + step + tabs.length) % tabs.length], true);
    });
  }
}

function startSystem(root) {
  const windows = /Win/.test(navigator.userAgentData?.platform ?? navigator.platform);
  const mine = windows ? "powershell" : "posix";
  const show = (system) => {
    for (const part of root.querySelectorAll("[data-system]")) part.hidden = part.dataset.system !== system;
    other.textContent = system === "posix" ? t("Show the lines for Windows PowerShell") : t("Show the lines for macOS and Linux");
    other.dataset.next = system === "posix" ? "powershell" : "posix";
  };
  const other = document.createElement("button");
  other.type = "button";
  other.className = "plain flush small";
  other.addEventListener("click", () => show(other.dataset.next));
  const line = document.createElement("p");
  line.append(other);
  root.append(line);
  show(mine);
}

// A ticket is good for one script and ten minutes: a new one is fetched after each copy and before it grows old.
function startTickets(root) {
  const lines = [...root.querySelectorAll("[data-ticket]")];
  const renew = async (client) => {
    const own = lines.filter((code) => code.dataset.command === client);
    const fresh = (await call("POST", "/api/setup-tickets", { label: client })).ticket;
    for (const code of own) {
      code.textContent = code.textContent.replace(code.dataset.ticket, fresh);
      code.dataset.ticket = fresh;
    }
  };
  document.addEventListener("copied", (event) => {
    if (event.detail.dataset.ticket) renew(event.detail.dataset.command).catch(() => {});
  });
  const clients = new Set(lines.map((code) => code.dataset.command));
  const all = () => Promise.all([...clients].map(renew)).catch(() => {});
  if (lines.length) setInterval(all, 8 * 60 * 1000);
}

export function startSetup() {
  const root = document.querySelector("[data-setup]");
  if (!root) return;
  startTabs(root);
  startSystem(root);
  startTickets(root);
  root.dataset.ready = "";
}

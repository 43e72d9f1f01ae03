// One connection for everything that changes while a page is open. The server names what has changed; the parts of
// this page that show it are fetched again, as the server writes them:  <section id="…" data-live="request state">
import { refreshTimes } from "./times.js";
import { toast } from "./toast.js";
import { typedIn } from "./typed.js";
import { t } from "./words.js";

const KINDS = ["request", "state", "log"];
const RETRY_MS = [2_000, 5_000, 15_000, 30_000]; // after an answer that is no stream, as of a proxy before a server that starts
const TOGETHER_MS = 250;
const LONGEST_MS = 60_000;
const SHARE = 20;
let tried = 0;
let took = 0; // ms, the page as it was last fetched
let looked = 0; // when that was
let told = false; // that there was an upgrade
const waiting = new Set();
const missed = new Set(); // what changed while the page was hidden, or a part of it in use

// What is being read or typed in is left as it is. A button that was only clicked holds nothing back.
function inUse(part) {
  return part.querySelector(":focus-visible, details[open]") !== null || typedIn(part);
}

function catchUp() {
  if (document.hidden) return;
  missed.forEach(soon);
  missed.clear();
}

// This page as the server writes it now, null when it cannot be had.
async function written() {
  const url = new URL(location.href);
  url.searchParams.set("part", "1");
  const began = performance.now();
  const answer = await fetch(url, { headers: { Accept: "text/html" } }).catch(() => null);
  const page = answer?.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  looked = performance.now();
  took = looked - began;
  return page;
}

// After an upgrade the server writes for another stylesheet and other scripts than this page has. It begins anew, unless
// that would take away what is typed, what is being asked, or a secret that is shown once.
function outdated(page) {
  const sheet = (one) => one.querySelector("link[rel=stylesheet]")?.getAttribute("href");
  if (sheet(page) === sheet(document)) return false;
  if (!typedIn(document) && !document.querySelector("dialog[open], #first-key, [data-shown]")) location.reload();
  else if (!told) toast(t("The pool was upgraded. Reload this page when you have finished here."));
  told = true;
  return true;
}

// Parts that an action of this page has changed: they show it at once.
export async function refreshParts(ids) {
  const fresh = await written();
  if (fresh && outdated(fresh)) return;
  for (const id of fresh ? ids : []) {
    const next = fresh.getElementById(id);
    if (!next) continue;
    const part = document.getElementById(id);
    const opened = [...part.querySelectorAll("details[open][id]")].map((row) => row.id);
    part.replaceChildren(...next.childNodes);
    for (const row of opened) document.getElementById(row)?.setAttribute("open", "");
    refreshTimes(part);
  }
}

async function refresh(what) {
  const fresh = await written();
  if (!fresh || outdated(fresh)) return;
  for (const part of document.querySelectorAll(`[data-live~="${what}"]`)) {
    const next = fresh.getElementById(part.id);
    if (!next) continue;
    if (inUse(part)) {
      missed.add(what);
      continue;
    }
    part.replaceChildren(...next.childNodes);
    refreshTimes(part);
  }
  document.dispatchEvent(new CustomEvent("refreshed", { detail: what }));
}

// Several events in a row are one look. What happens after a quiet while is shown at once; of what goes on and on, an
// open page takes a twentieth of the time it costs to make, so that nobody's open page slows the pool down.
function soon(what) {
  if (waiting.has(what) || !document.querySelector(`[data-live~="${what}"]`)) return;
  waiting.add(what);
  const pause = Math.min(LONGEST_MS, took * SHARE);
  setTimeout(() => {
    waiting.delete(what);
    if (document.hidden) missed.add(what);
    else refresh(what);
  }, Math.max(TOGETHER_MS, looked + pause - performance.now()));
}

// The session has ended. What is typed stays until somebody has signed in again elsewhere.
function signedOut() {
  if (typedIn(document)) toast(t("You were signed out. Sign in again in another tab; what you typed here stays."));
  else location.reload();
}

// A connection tells only what changes while it stands: after a gap everything is looked at again.
function connect(again) {
  const source = new EventSource("/api/live");
  let stood = again;
  for (const what of KINDS) source.addEventListener(what, () => soon(what));
  source.addEventListener("open", () => {
    if (stood) KINDS.forEach(soon);
    stood = true;
    tried = 0;
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries by itself
    setTimeout(() => connect(true), RETRY_MS[Math.min(tried++, RETRY_MS.length - 1)]);
  });
  source.addEventListener("bye", () => {
    source.close();
    signedOut();
  });
  addEventListener("pagehide", () => source.close());
}

export function startLive() {
  if (!document.querySelector("[data-live]")) return;
  connect(false);
  document.addEventListener("visibilitychange", catchUp);
  document.addEventListener("focusout", catchUp);
  document.addEventListener("toggle", catchUp, true);
}

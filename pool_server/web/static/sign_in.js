// A sign-in that is under way: the page asks how it goes and shows what has changed; what is being typed stays.
import { call } from "./http.js";
import { refreshParts } from "./live.js";

const PAUSE_MS = 1500;

async function look(part) {
  const found = await call("GET", part.dataset.poll).catch(() => null);
  if (!found) return;
  const now = `${found.state} ${found.step ?? ""} ${found.message}`;
  if (now === part.dataset.was) return;
  const typing = part.querySelector("textarea:focus");
  if (typing && found.state === "waiting") return;
  part.dataset.was = now;
  await refreshParts([part.id]);
  if (found.state !== "waiting") part.dataset.poll = "";
}

export function startSignIn() {
  const part = document.querySelector("[data-poll]");
  if (!part) return;
  const again = async () => {
    if (!part.dataset.poll) return;
    if (!document.hidden) await look(part);
    setTimeout(again, PAUSE_MS);
  };
  setTimeout(again, PAUSE_MS);
}

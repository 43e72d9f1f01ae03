// The one way a page talks to the JSON API: XSRF token sent along, errors as one plain sentence.
import { t } from "./words.js";

const about = (page, name) => page.querySelector(`meta[name=${name}]`)?.content;

async function send(method, path, body) {
  const headers = { Accept: "application/json", "X-XSRFToken": about(document, "xsrf") };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error(t("The pool cannot be reached right now."));
  }
}

// Somebody who has signed in again in another tab goes on here; another person's session never takes this page over.
async function renewed() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [token, who] = [about(page, "xsrf"), about(page, "caller")];
  if (!who || who !== about(document, "caller") || token === about(document, "xsrf")) return false;
  document.querySelector("meta[name=xsrf]").content = token;
  for (const field of document.querySelectorAll("input[name=_xsrf]")) field.value = token;
  return true;
}

export async function call(method, path, body) {
  let answer = await send(method, path, body);
  if (answer.status === 403 && (await answer.clone().json().catch(() => null))?.error?.code === "xsrf" && (await renewed())) {
    answer = await send(method, path, body);
  }
  const value = await answer.json().catch(() => null);
  if (answer.status === 401 && about(document, "caller")) {
    throw new Error(t("You were signed out. Sign in again in another tab, then send this once more: what you typed stays."));
  }
  if (!answer.ok) throw new Error(value?.error?.message ?? t("The pool answered {status}.", { status: answer.status }));
  return value;
}

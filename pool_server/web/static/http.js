// The one way a page talks to the JSON API: XSRF token sent along, errors as one plain sentence.
import { t } from "./words.js";

export async function call(method, path, body) {
  const headers = { Accept: "application/json", "X-XSRFToken": document.querySelector("meta[name=xsrf]").content };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error(t("The pool cannot be reached right now."));
  }
  const value = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(value?.error?.message ?? t("The pool answered {status}.", { status: answer.status }));
  return value;
}

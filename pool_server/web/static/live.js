// One connection for everything that changes while a page is open. The server sends named pieces of HTML-free facts;
// a page that wants them says so with data-live on <main>'s parts.
export function startLive() {
  const wanted = document.querySelector("[data-live]");
  if (!wanted) return;
  const source = new EventSource("/api/live");
  for (const name of ["state", "request", "alert"]) {
    source.addEventListener(name, (event) => {
      document.dispatchEvent(new CustomEvent(`live:${name}`, { detail: JSON.parse(event.data) }));
    });
  }
  addEventListener("pagehide", () => source.close());
}

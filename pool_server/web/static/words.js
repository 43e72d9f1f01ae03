// What scripts say, in the page's language: `poolWords` comes with every page that is not English.
export function t(text, values = {}) {
  const words = globalThis.poolWords?.[text] ?? text;
  return words.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

// Whether somebody has typed or chosen something that is not sent yet: it must not vanish by what the page does itself.
function changed(field) {
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.type === "select-one") {
    const usual = [...field.options].find((option) => option.defaultSelected) ?? field.options[0];
    return field.selectedOptions[0] !== usual;
  }
  return field.type !== "hidden" && field.value !== field.defaultValue;
}

export function typedIn(part) {
  return [...part.querySelectorAll("input, textarea, select")].some(changed);
}

// Tells screen readers what has happened: finished answers and outcomes, never single tokens.

const region = document.getElementById("announcements");

export function announce(text, lang = "") {
  region.replaceChildren();
  region.lang = lang;
  region.append(text);
}

// What a new conversation shows: who is there, and something to begin with.

import { el } from "./dom.js";
import { t } from "./i18n.js";
import { avatar, nameOf, roleOf, tint } from "./personas.js";

/** `send(message)` is called with the starter that was chosen. */
export function welcome(send) {
  return el("div", { class: "welcome" },
    el("h2", {}, () => t().welcome),
    el("p", {}, () => t().welcomeText),
    el("ul", { class: "starters" }, Object.keys(t().starters).map((persona) => starter(persona, send))));
}

function starter(persona, send) {
  const text = () => t().starters[persona];
  return el("li", {}, tint(
    el("button", { type: "button", onclick: () => send(text()) },
      el("span", { class: "who" },
        avatar(persona),
        el("span", {}, el("b", {}, () => nameOf(persona)), el("small", {}, () => roleOf(persona)))),
      el("span", { class: "example" }, text)), persona));
}

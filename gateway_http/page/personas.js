// Who answers: names, roles, faces and colours. ION's own four are drawn; personas of users' own share a neutral face.

import { el } from "./dom.js";
import { language, word } from "./i18n.js";

const FACES = {
  Elro: { face: new URL("./elro.svg", import.meta.url), hue: 265 },
  Lua: { face: new URL("./lua.svg", import.meta.url), hue: 220 },
  Nana: { face: new URL("./nana.svg", import.meta.url), hue: 350 },
  Riri: { face: new URL("./riri.svg", import.meta.url), hue: 165 },
};
const NEUTRAL = new URL("./persona.svg", import.meta.url);

const known = new Map();

/** What GET /personas tells; until it has, names are as they come. */
export function learn(personas) {
  known.clear();
  for (const persona of personas) known.set(persona.name, persona);
}

export const names = () => [...known.keys()];

/** In the language of the page. */
export function nameOf(persona) {
  const korean = known.get(persona)?.korean_name || word("personas", persona)?.name;
  return (language() === "ko" && korean) || persona;
}

export function roleOf(persona) {
  return word("personas", persona)?.role ?? known.get(persona)?.role ?? "";
}

/** A face: decoration beside a name that is written out. */
export function avatar(persona, size = "") {
  const own = Object.hasOwn(FACES, persona);
  return el("img", {
    class: `avatar ${size} ${own ? "" : "neutral"}`,
    src: own ? FACES[persona].face : NEUTRAL,
    alt: "",
    width: 40,
    height: 40,
  });
}

/** Gives everything in the node the persona's colour; none takes it back. The policy allows this, and no style="". */
export function tint(node, persona) {
  if (persona) node.style.setProperty("--hue", hueOf(persona));
  else node.style.removeProperty("--hue");
  node.classList.toggle("tinted", Boolean(persona));
  return node;
}

function hueOf(persona) {
  if (Object.hasOwn(FACES, persona)) return FACES[persona].hue;
  let hash = 0;
  for (const character of persona) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}

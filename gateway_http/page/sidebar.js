// The settings in the sidebar, and the sidebar itself where the page is too narrow to show it always.

import { announce } from "./announce.js";
import { bind, icon } from "./dom.js";
import { language, setLanguage, t } from "./i18n.js";
import { apiKey, settings } from "./store.js";

const NARROW = matchMedia("(max-width: 52rem)");
const DARK = matchMedia("(prefers-color-scheme: dark)");
const byId = (id) => document.getElementById(id);

export function setUpSidebar() {
  setUpDrawer();
  setUpTheme();
  byId("language").addEventListener("click", () => setLanguage(language() === "ko" ? "en" : "ko"));
  byId("forget-key").append(icon("key"));
  byId("forget-key").addEventListener("click", () => {
    apiKey.forget();
    showKey();
    announce(t().keyForgotten);
    byId("language").focus();
  });
  showKey();
}

/** Whether there is a key to forget. */
export function showKey() {
  byId("forget-key").hidden = apiKey.get() === null;
}

let opened = false;

export function closeDrawer() {
  const wasOpen = opened;
  open(false);
  if (wasOpen && NARROW.matches) byId("open-menu").focus();
}

function setUpDrawer() {
  byId("open-menu").append(icon("menu"));
  byId("close-menu").append(icon("close"));
  byId("open-menu").addEventListener("click", () => {
    open(true);
    byId("close-menu").focus();
  });
  byId("close-menu").addEventListener("click", closeDrawer);
  const beside = ({ target }) => opened && !byId("sidebar").contains(target) && closeDrawer();
  document.addEventListener("click", beside, { capture: true }); // before the click that opens has opened it
  byId("sidebar").addEventListener("keydown", (event) => event.key === "Escape" && opened && closeDrawer());
  NARROW.addEventListener("change", () => open(false));
  open(false);
}

/** What it covers is out of reach for the keyboard and screen readers too. */
function open(wanted) {
  opened = wanted && NARROW.matches;
  document.body.classList.toggle("drawer-open", opened);
  byId("open-menu").setAttribute("aria-expanded", String(opened));
  byId("main").inert = opened;
}

function setUpTheme() {
  const button = byId("theme");
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    settings.set("theme", theme);
    draw();
  });
  const draw = () => {
    const name = isDark() ? t().lightTheme : t().darkTheme;
    button.replaceChildren(icon(isDark() ? "sun" : "moon"));
    button.setAttribute("aria-label", name);
    button.title = name;
  };
  bind(button, draw);
  DARK.addEventListener("change", draw);
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (DARK.matches ? "dark" : "light")) === "dark";
}

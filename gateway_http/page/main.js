// Puts the page together: which conversation is open, and what each part tells the others.

import { listPersonas, onUnauthenticated } from "./api.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { askedForKey } from "./dialogs.js";
import { bind, el, iconButton, icon, refresh } from "./dom.js";
import { sentenceOf, t, translatePage } from "./i18n.js";
import { learn, names } from "./personas.js";
import { followEnd } from "./scrolling.js";
import { Sessions, addressOf, idIn, save } from "./sessions.js";
import { closeDrawer, setUpSidebar, showKey } from "./sidebar.js";
import { apiKey } from "./store.js";
import { welcome } from "./welcome.js";

const byId = (id) => document.getElementById(id);
const view = byId("conversation");
const scrollToEnd = followEnd(view);
// Conversations whose answers are still being written, so that one may look elsewhere meanwhile.
const running = new Map();
let current;

onUnauthenticated(oneKeyDialog());
setUpSidebar();
const sessions = new Sessions(byId("sessions"), { deleting: (id) => running.get(id)?.stop(), deleted });
const composer = new Composer(byId("composer"), { send, stop: () => current.stop() });
translatePage();
setUpBar();
setUpShortcuts();
addEventListener("hashchange", () => open(idIn(location.hash)));
open(idIn(location.hash));
sessions.refresh();
loadPersonas();
if (matchMedia("(hover: hover)").matches) composer.focus(); // elsewhere a keyboard would cover half the page

/** Requests that are refused at the same time share one question; nobody is asked twice without doing anything. */
function oneKeyDialog() {
  let asking = null;
  let declined = false;
  return ({ refused, unprompted }) => {
    if (declined && unprompted) return false;
    asking ??= askedForKey({ refused }).then((key) => {
      asking = null;
      declined = !key;
      if (key) apiKey.set(key);
      showKey();
      return Boolean(key);
    });
    return asking;
  };
}

async function loadPersonas() {
  try {
    learn(await listPersonas());
  } catch {
    return; // then ION chooses; an answer still tells who wrote it
  }
  composer.showPersonas();
  refresh();
}

function send(message, persona) {
  if (current.empty) {
    view.replaceChildren(current.node);
    history.replaceState(null, "", addressOf(current.id));
  }
  const sent = current.say(message, persona);
  drawTitle();
  scrollToEnd();
  return sent;
}

function startNew() {
  history.pushState(null, "", location.pathname + location.search);
  open(null);
  composer.focus();
}

function deleted(id) {
  if (current.id === id) startNew();
  byId("new").focus();
}

/** A stored conversation, one that is still being answered, or a new one. */
async function open(id) {
  if (id !== null && current?.id === id) return;
  const conversation = running.get(id) ?? new Conversation({ id: id ?? undefined, changed });
  current = conversation;
  closeDrawer();
  show(conversation);
  if (id === null || running.has(id)) return;
  await load(conversation);
}

/** Nothing is sent meanwhile: a turn that is stored before the server reads the others would come twice. */
async function load(conversation) {
  view.replaceChildren(el("p", { class: "loading", role: "status" }, () => t().loading));
  composer.loading = true;
  let failure = null;
  try {
    await conversation.load();
  } catch (error) {
    failure = error;
  }
  if (current !== conversation) return;
  show(conversation);
  if (failure && conversation.empty) tellInstead(failure);
}

function tellInstead(failure) {
  view.replaceChildren(el("p", { class: "loading", role: "alert" }, () => sentenceOf(failure)));
}

function show(conversation) {
  view.replaceChildren(conversation.empty ? welcome((message) => send(message, null)) : conversation.node);
  refresh(view); // what was out of view keeps the language it had
  composer.running = conversation.running;
  composer.loading = false;
  sessions.open = conversation.id;
  drawTitle();
  if (conversation.empty) view.scrollTop = 0;
  else scrollToEnd();
}

/** An answer has begun or ended, in the open conversation or in another. */
function changed(conversation) {
  if (conversation.running) running.set(conversation.id, conversation);
  else {
    running.delete(conversation.id);
    sessions.refresh();
    if (names().length === 0) loadPersonas(); // the server was away, or there was no key yet
  }
  if (conversation !== current) return;
  composer.running = conversation.running;
  keepFocus();
}

/** What was pressed may be gone: a starter, or an answer to try again. */
function keepFocus() {
  if (document.activeElement === document.body) view.focus({ preventScroll: true });
}

function drawTitle() {
  byId("title").textContent = current.title || t().newConversation;
  byId("actions").hidden = current.empty;
}

function setUpBar() {
  byId("new").prepend(icon("plus"));
  byId("new").addEventListener("click", startNew);
  bind(byId("title"), () => current && drawTitle());
  byId("actions").append(
    iconButton("download", () => t().export, () => save(current.id)),
    iconButton("trash", () => t().delete, () => sessions.delete(current.id, current.title)));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the conversation
    composer.focus();
  });
  view.setAttribute("role", "region");
  view.tabIndex = 0;
  bind(view, () => view.setAttribute("aria-label", t().messages));
}

function setUpShortcuts() {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && current.running) current.stop();
    if (event.key === "/" && !isTyping(event)) {
      event.preventDefault();
      composer.focus();
    }
  });
}

function isTyping({ target, ctrlKey, metaKey, altKey }) {
  return ctrlKey || metaKey || altKey || target.matches("input, textarea, select, [contenteditable]");
}

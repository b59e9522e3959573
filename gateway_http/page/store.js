// What the browser keeps. Where it keeps nothing (blocked storage), values live as long as the page.

class Store {
  #area;
  #memory = new Map();

  constructor(area) {
    this.#area = area;
  }

  get(name) {
    try {
      return this.#area().getItem(name) ?? this.#memory.get(name) ?? null;
    } catch {
      return this.#memory.get(name) ?? null;
    }
  }

  set(name, value) {
    this.#memory.set(name, value);
    try {
      this.#area().setItem(name, value);
    } catch {
      // kept in memory
    }
  }

  remove(name) {
    this.#memory.delete(name);
    try {
      this.#area().removeItem(name);
    } catch {
      // was in memory alone
    }
  }
}

const kept = new Store(() => localStorage);
const forThisTab = new Store(() => sessionStorage);

export const settings = {
  get: (name) => kept.get(`ion.${name}`),
  set: (name, value) => kept.set(`ion.${name}`, value),
};

export const apiKey = {
  get: () => forThisTab.get("ion.key"),
  set: (key) => forThisTab.set("ion.key", key),
  forget: () => forThisTab.remove("ion.key"),
};

/** 32 random hexadecimal digits; unlike randomUUID also where the page came over plain HTTP. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Who the conversations belong to: made up once for this browser. */
export function userId() {
  let id = settings.get("user");
  if (!id) {
    id = `web-${randomId()}`;
    settings.set("user", id);
  }
  return id;
}

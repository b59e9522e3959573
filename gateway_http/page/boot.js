// Runs before the first paint, so that neither colours nor words change under the reader's eyes.
(() => {
  const root = document.documentElement;
  const kept = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  };
  const theme = kept("ion.theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const language = kept("ion.language") ?? (navigator.language || "en");
  root.lang = language.toLowerCase().startsWith("ko") ? "ko" : "en";
})();

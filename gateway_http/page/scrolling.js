// Keeps the end of a conversation in view while it grows, unless the reader has scrolled away from it.

const NEAR_END_PIXELS = 120;

/** Follows the view's "grow" events; returns what brings the end into view. */
export function followEnd(view) {
  let atEnd = true;
  const follow = () => {
    if (atEnd) view.scrollTop = view.scrollHeight;
  };
  view.addEventListener("scroll", () => {
    atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR_END_PIXELS;
  });
  view.addEventListener("grow", follow);
  return () => {
    atEnd = true;
    follow();
  };
}

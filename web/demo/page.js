/**
 * What all parts of the demo page share: elements, one way to write a time, and the list of what
 * happened.
 *
 * Invariant: text of others becomes text, never HTML.
 */
const NOTES_KEPT = 50;

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

export const byId = (id) => document.getElementById(id);

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A time of day; every one on the page looks like this. */
export function timeOfDay(ms) {
  const when = new Date(ms);
  return element("time", { dateTime: when.toISOString() }, clock.format(when));
}

/** Runs a change of what is inside a scrolled box; whoever was at its end stays there. */
export function keepAtEnd(box, change, { always = false } = {}) {
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  change();
  if (isAtEnd || always) box.scrollTop = box.scrollHeight;
}

/** Adds to what happened. */
export function note(text) {
  const list = byId("log");
  keepAtEnd(byId("log-scroll"), () => {
    list.append(element("li", {}, timeOfDay(Date.now()), element("span", {}, text)));
    while (list.children.length > NOTES_KEPT) list.firstChild.remove();
  });
}

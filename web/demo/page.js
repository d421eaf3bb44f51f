/**
 * Shared by all parts of the demo page: elements, the format of times, and the event list.
 *
 * Invariant: text of other users is inserted as text, never as HTML.
 */
const NOTES_KEPT = 50;

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

export const byId = (id) => document.getElementById(id);

/** Creates an element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** An element with the local time of day. */
export function timeOfDay(ms) {
  const when = new Date(ms);
  return element("time", { dateTime: when.toISOString() }, clock.format(when));
}

/** Changes the contents of a scrolled box and keeps it scrolled to the end if it was there. */
export function keepAtEnd(box, change, { always = false } = {}) {
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  change();
  if (isAtEnd || always) box.scrollTop = box.scrollHeight;
}

/** Appends a line to the event list. */
export function note(text) {
  const list = byId("log");
  keepAtEnd(byId("log-scroll"), () => {
    list.append(element("li", {}, timeOfDay(Date.now()), element("span", {}, text)));
    while (list.children.length > NOTES_KEPT) list.firstChild.remove();
  });
}

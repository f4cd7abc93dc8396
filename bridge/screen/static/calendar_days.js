// Open hours of a day as rows of a form: read from a calendar, and read back as one.

import { el } from "./dom.js";

export const DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

const nameOf = (day) => day.charAt(0).toUpperCase() + day.slice(1);
const button = (text, label, onclick) => el("button", { class: "button quiet small", type: "button", "aria-label": label, onclick }, text);

/** A list of stretches with a button for one more; `changed` is told of every change. */
function stretches(spans, whose, changed) {
  const list = el("div", { class: "stretches" });
  const closed = el("p", { class: "closed" }, "Closed");
  const buttons = el("div", { class: "stretch-buttons" },
    button("Add hours", `Add hours on ${whose}`, () => {
      const before = [...list.querySelectorAll(".stretch")].at(-1)?.querySelector("[data-part=closes]").value;
      add(before ? { opens: before, closes: "" } : { opens: "09:00", closes: "17:00" }).querySelector("input").focus();
      changed();
    }));
  const tell = () => { closed.hidden = list.querySelector(".stretch") !== null; };
  const add = ({ opens, closes, agents }) => {
    const part = (name, label, type, value, more = {}) => {
      const input = el("input", { type, "data-part": name, "aria-label": `${whose}, ${label}`, ...more });
      input.value = value;
      return input;
    };
    const row = el("div", { class: "stretch" },
      part("opens", "opens", "time", opens), el("span", { "aria-hidden": "true" }, "to"),
      part("closes", "closes", "time", closes === "24:00" ? "00:00" : closes),
      part("agents", "callbacks at a time", "number", agents ?? "", { min: 0, max: 10000, placeholder: "Callbacks" }),
      button("Remove", `Remove these hours on ${whose}`, () => {
        row.remove();
        tell();
        buttons.firstChild.focus();
        changed();
      }));
    buttons.before(row);
    tell();
    return row;
  };
  list.append(closed, buttons);
  for (const span of spans) add(span);
  tell();
  return list;
}

/** The hours as the API has them. */
function read(list, where) {
  return [...list.querySelectorAll(".stretch")].map((row, number) => {
    const found = {};
    for (const input of row.querySelectorAll("input")) {
      const name = input.dataset.part;
      input.dataset.field = `${where}.${number}.${name}`;
      found[name] = input.value;
    }
    return { opens: found.opens, closes: found.closes === "00:00" ? "24:00" : found.closes, agents: found.agents === "" ? null : Number(found.agents) };
  });
}

export function paintWeek(place, weekly, changed) {
  place.replaceChildren(...DAYS.map((day) => {
    const list = stretches(weekly[day] ?? [], nameOf(day), changed);
    if (day === "monday") {
      list.lastChild.append(button("Same until Friday", "Same until Friday: the hours of Monday", () => {
        const hours = read(list, "");
        paintWeek(place, { ...readWeek(place), ...Object.fromEntries(DAYS.slice(0, 5).map((name) => [name, hours])) }, changed);
        place.querySelector(".stretch-buttons").lastChild.focus();
        changed();
      }));
    }
    return el("div", { class: "day", role: "group", "aria-label": nameOf(day), "data-day": day }, el("strong", {}, nameOf(day)), list);
  }));
}

export function readWeek(place) {
  return Object.fromEntries([...place.children].map((row) => [row.dataset.day, read(row.querySelector(".stretches"), `weekly.${row.dataset.day}`)]));
}

export function paintSpecial(place, days, changed) {
  place.replaceChildren(...[...days].sort((a, b) => (a.date < b.date ? -1 : 1)).map((day) => special(day, changed)));
}

export function special({ date, name, hours }, changed) {
  const day = el("input", { type: "date", "data-part": "date", "aria-label": "Date" });
  day.value = date;
  const said = el("input", { "data-part": "name", "aria-label": "Name of the day", maxlength: 200, placeholder: "Name, such as stocktaking", autocomplete: "off" });
  said.value = name;
  const row = el("div", { class: "day special-day", role: "group", "aria-label": `Special day ${date}` },
    el("div", { class: "special-head" }, day, said, button("Remove day", `Remove day ${date}`, () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      (next?.querySelector("input") ?? document.getElementById("add-day")).focus();
      changed();
    })),
    stretches(hours, "the special day", changed));
  return row;
}

export function readSpecial(place) {
  return [...place.children].map((row, number) => {
    const [date, name] = row.querySelectorAll(".special-head input");
    date.dataset.field = `special_days.${number}.date`;
    name.dataset.field = `special_days.${number}.name`;
    return { date: date.value, name: name.value.trim(), hours: read(row.querySelector(".stretches"), `special_days.${number}.hours`) };
  });
}

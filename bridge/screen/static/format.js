// Times and lengths of time as people read them.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const dayOnly = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const wholeDay = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export const timeOfDay = (text) => clock.format(new Date(text));
export const longDay = (date) => wholeDay.format(date);

/** "10:42" today, "3 May, 10:42" this year, "3 May 2024" before. */
export function when(text, now = new Date()) {
  const at = new Date(text);
  if (at.toDateString() === now.toDateString()) return clock.format(at);
  return (at.getFullYear() === now.getFullYear() ? dayAndClock : dayOnly).format(at);
}

/** "0:07", "12:41", "1:02:03". */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** "just now", "12 min", "3 h 5 min". */
export function span(ms) {
  const minutes = Math.floor(ms / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The time now in a place, such as "10:32"; empty for a zone this browser does not know. */
export function timeIn(zone) {
  try {
    return new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", timeZone: zone }).format(new Date());
  } catch {
    return "";
  }
}

/** A number as it is written; a North American E.164 number is grouped, all others stay as they are. */
export function phone(number) {
  const found = /^\+1(\d{3})(\d{3})(\d{4})$/.exec(number ?? "");
  return found ? `(${found[1]}) ${found[2]}-${found[3]}` : (number ?? "");
}

export const device = (name) => (name ?? "").replace(/^(PJSIP|SIP|user)\//, "Phone ");

/** One colour for one client company, the same on every screen and every day. */
export function hue(id) {
  let sum = 7;
  for (const letter of id) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  // Steps of a palette, without the reds that mean danger here.
  return [60, 95, 135, 165, 195, 225, 255, 285, 310, 335][sum % 10];
}

const CAUSES = {
  completed: "Talked", abandoned: "Gave up waiting", busy: "Busy", rejected: "Declined", no_answer: "No answer",
  cancelled: "Caller hung up", failed: "Failed", machine: "Answering machine", uncertain: "End not seen",
  answered_elsewhere: "Answered by a colleague", unreachable: "Phone unreachable", transferred: "Transferred",
  merged: "Joined with another call",
};
export const cause = (name) => CAUSES[name] ?? (name ? words(name) : "Ended");

export const words = (name) => {
  const text = String(name).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
};

export const OUTCOMES = [
  ["sale", "Sale"], ["callback", "Callback"], ["no_interest", "No interest"], ["wrong_number", "Wrong number"], ["other", "Other"],
];
export const outcome = (value) => OUTCOMES.find(([key]) => key === value)?.[1] ?? words(value);

// What became of the times that visitors were told: the share that was kept, today and in the days before, by site.

import { el } from "./dom.js";

const sum = (days) => days.reduce((all, day) => ({ kept: all.kept + day.kept, broken: all.broken + day.broken }), { kept: 0, broken: 0 });
const share = ({ kept, broken }) => (kept + broken ? `${kept} of ${kept + broken} (${Math.floor((100 * kept) / (kept + broken))} %)` : "none due");

/** The line above the list; null where no site has been judged yet. */
export function promisesLine(sites) {
  const judged = sites.filter((site) => { const { kept, broken } = sum(site.days); return kept + broken || !site.promising; });
  if (!judged.length) return null;
  const today = sum(judged.map((site) => site.days[0]));
  const week = sum(judged.flatMap((site) => site.days));
  return el("div", { class: "kept" },
    el("dl", {},
      el("div", {}, el("dt", {}, "Promises kept today"), el("dd", {}, share(today))),
      el("div", {}, el("dt", {}, `Last ${judged[0].days.length} days`), el("dd", {}, share(week)))),
    judged.length < 2 ? null : el("details", {}, el("summary", {}, "By site"),
      el("ul", {}, ...judged.map((site) => el("li", {}, el("strong", {}, site.site), ` today ${share(site.days[0])}, in ${site.days.length} days ${share(sum(site.days))}`)))),
    ...judged.filter((site) => !site.promising).map((site) => el("p", { class: "notice" },
      el("strong", {}, `${site.site} promises no time now.`),
      " Too few of its last 20 promises were kept, so visitors are told that they are called as soon as someone is free. It begins again by itself once 18 of 20 are kept: more agents who are ready, or fewer callbacks at once, help.")));
}

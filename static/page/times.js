// Formatting times.

import { element } from "../dom.js";

const TIME = { hour: "numeric", minute: "2-digit" };
const DAY = { month: "short", day: "numeric" };

/**
 * A `<time>` element: shows the hour if it is today, day and hour if it is this year, else the
 * date.
 */
export function timeOf(iso) {
  const time = new Date(iso);
  const properties = { dateTime: iso, title: time.toLocaleString() };
  return element("time", properties, time.toLocaleString([], formatOf(time)));
}

function formatOf(time) {
  if (dayOf(time) === "Today") return TIME;
  // Imported turns may be years old.
  const isThisYear = time.getFullYear() === new Date().getFullYear();
  return isThisYear ? { ...DAY, ...TIME } : { ...DAY, year: "numeric" };
}

/** "Today", "Yesterday" or "Earlier". */
export function dayOf(time) {
  const midnight = (of) => new Date(of).setHours(0, 0, 0, 0);
  // A day may have 23 or 25 hours.
  const days = Math.round((midnight(Date.now()) - midnight(time)) / 86_400_000);
  if (days < 1) return "Today";
  return days < 2 ? "Yesterday" : "Earlier";
}

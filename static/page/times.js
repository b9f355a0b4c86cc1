// Formatting times.

import { element } from "../dom.js";

const TIME = { hour: "numeric", minute: "2-digit" };
const DAY = { month: "short", day: "numeric" };
const DAY_AND_TIME = { ...DAY, ...TIME };
const DATE = { ...DAY, year: "numeric" };

// A browser takes longer to make a format than to use it a hundred times.
const formats = new Map();
const formatOf = (options, locales = []) =>
  formats.get(options) ??
  formats.set(options, new Intl.DateTimeFormat(locales, options)).get(options);

/**
 * A `<time>` element: shows the hour if it is today, day and hour if it is this year, else the
 * date.
 */
export const timeOf = (iso) => timeElement(iso, DAY_AND_TIME);

/** The same for the list of chats: shows the hour if it is today, else the day. */
export const shortTimeOf = (iso) => timeElement(iso, DAY);

function timeElement(iso, thisYear) {
  const time = new Date(iso);
  const isThisYear = time.getFullYear() === new Date().getFullYear();
  // Imported turns may be years old.
  const options = daysSince(time) < 1 ? TIME : isThisYear ? thisYear : DATE;
  const properties = { dateTime: iso, title: time.toLocaleString() };
  return element("time", properties, formatOf(options).format(time));
}

const MONTH = { month: "long", year: "numeric" };

/** "Today", "Yesterday", "Previous 7 days", or a month such as "October 2026". */
export function periodOf(time) {
  const days = daysSince(time);
  if (days < 1) return "Today";
  if (days < 2) return "Yesterday";
  return days < 8 ? "Previous 7 days" : formatOf(MONTH, "en").format(new Date(time));
}

function daysSince(time) {
  const midnight = (of) => new Date(of).setHours(0, 0, 0, 0);
  // A day may have 23 or 25 hours.
  return Math.round((midnight(Date.now()) - midnight(time)) / 86_400_000);
}

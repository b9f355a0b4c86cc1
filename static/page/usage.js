// The usage panel: the user's tokens of the last thirty days, by model and day.

import { $, element } from "../dom.js";
import { api } from "./api.js";
import { attempt } from "./screen.js";

const COUNTS = {
  replies: "Replies",
  input_tokens: "Read",
  output_tokens: "Written",
  estimated_tokens: "Estimated",
};
const { format } = new Intl.NumberFormat();

let asking = new AbortController(); // aborts at the next request

/** Shows the usage, or an error. */
export const attemptUsage = attempt(showUsage, (problem) => {
  Object.assign($("used"), { textContent: problem || "Loading…", className: problem && "alarm" });
  $("share").hidden = true;
  $("by-model").replaceChildren();
});

async function showUsage() {
  asking.abort();
  asking = new AbortController();
  const { data, meta } = await api("GET", "usage", { signal: asking.signal });
  showSum(meta, data.length > 0);
  const parts = Object.entries(Object.groupBy(data, ({ model }) => model)).map(partOf);
  parts.sort((one, other) => other.tokens - one.tokens);
  if (meta.limit !== null && parts.length) {
    $("by-model").append(element("h3", { className: "faint" }, "The last 30 days"));
  }
  $("by-model").append(...parts.map(({ node }) => node));
  if (parts.length === 1) parts[0].node.open = true;
}

function showSum({ used, limit, resets_at }, isUsed) {
  if (limit === null) {
    $("used").textContent =
      `You have used ${isUsed ? `${format(used)} tokens` : "nothing"} in the last 30 days.`;
    return;
  }
  const reset = new Date(resets_at).toLocaleString([], { dateStyle: "full", timeStyle: "short" });
  const next = used < limit ? "The count starts over" : "Ask again";
  $("used").textContent =
    `You have used ${format(used)} of ${format(limit)} tokens. ${next} on ${reset}.`;
  Object.assign($("share"), {
    hidden: false,
    max: limit,
    value: used,
    className: used < limit ? "" : "alarm",
  });
}

/**
 * One model's usage: its total `tokens`, for sorting, and a `node` with the sums and a table of
 * days.
 */
function partOf([model, rows]) {
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  const [replies, read, written, estimated] = Object.keys(COUNTS).map(sum);
  const answers = `${format(replies)} ${replies === 1 ? "reply" : "replies"}`;
  const summaryParts = [answers, `${format(read)} tokens read`, `${format(written)} written`];
  if (estimated) summaryParts.push(`≈ ${format(estimated)} estimated`);
  const summary = element(
    "summary",
    {},
    element("bdi", {}, model),
    element("small", {}, summaryParts.join(", ")),
  );
  const names = Object.keys(COUNTS).slice(0, estimated ? 4 : 3);
  return {
    tokens: read + written + estimated,
    node: element("details", {}, summary, tableOf(model, rows, names)),
  };
}

function tableOf(model, rows, names) {
  const heading = (scope, text) => element("th", { scope }, text);
  const captions = ["Day (UTC)", ...names.map((name) => COUNTS[name])];
  const head = element(
    "tr",
    {},
    captions.map((text) => heading("col", text)),
  );
  const line = (row) =>
    element(
      "tr",
      {},
      heading("row", dateOf(row.day)),
      names.map((name) => count(name, row[name])),
    );
  const body = element("tbody", {}, rows.map(line));
  return element("table", { ariaLabel: model }, element("thead", {}, head), body);
}

const dateOf = (day) =>
  new Date(day).toLocaleDateString([], { month: "short", day: "numeric", timeZone: "UTC" });

function count(name, number) {
  const mark = name === "estimated_tokens" && number ? "≈ " : "";
  return element("td", {}, mark + format(number));
}

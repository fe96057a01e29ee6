// Times for people: how long ago, and the date in the browser's time zone and language.

const UNITS = [["s", 1, 60], ["min", 60, 60], ["h", 3600, 24]];

export function ago(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return "now";
  for (const [unit, length, most] of UNITS) {
    if (seconds / length < most) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${Math.floor(seconds / 86400)} d ago`;
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

export function absolute(milliseconds) {
  return moment.format(new Date(milliseconds));
}

// Times: distances are kept fresh, clock times move into the viewer's own zone. The words are the server's.
import { t } from "./words.js";

const MINUTE = 60;
const HOUR = 3600;
const LANGUAGE = document.documentElement.lang === "en" ? "en-GB" : document.documentElement.lang;
const WEEKDAYS = [t("Sun"), t("Mon"), t("Tue"), t("Wed"), t("Thu"), t("Fri"), t("Sat")];
const MONTHS = [t("Jan"), t("Feb"), t("Mar"), t("Apr"), t("May"), t("Jun"), t("Jul"), t("Aug"), t("Sep"), t("Oct"), t("Nov"), t("Dec")];

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < MINUTE) return t("{n} s", { n: whole });
  const minutes = Math.round(whole / MINUTE);
  if (minutes < 60) return t("{n} min", { n: minutes });
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  if (hours < 24) return rest ? t("{h} h {m} min", { h: hours, m: rest }) : t("{n} h", { n: hours });
  const rounded = Math.round(whole / HOUR);
  const days = Math.floor(rounded / 24);
  return rounded % 24 && days < 14 ? t("{d} d {h} h", { d: days, h: rounded % 24 }) : t("{n} d", { n: days });
}

function distance(seconds) {
  if (seconds > 0) return t("in {time}", { time: duration(seconds) });
  return seconds > -5 ? t("just now") : t("{time} ago", { time: duration(-seconds) });
}

// In the page's language, not the browser's: what the server wrote must not change its look, only its zone.
function clock(moment, now, second) {
  const time = moment.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", second, hourCycle: "h23" });
  if (moment.toDateString() === now.toDateString()) return time;
  if (Math.abs(moment - now) < 6 * 86400e3) return t("{weekday} {time}", { weekday: WEEKDAYS[moment.getDay()], time });
  const [day, month, year] = [moment.getDate(), MONTHS[moment.getMonth()], moment.getFullYear()];
  if (year === now.getFullYear()) return t("{day} {month} {time}", { day, month, time });
  return t("{day} {month} {year} {time}", { day, month, year, time });
}

// Words that stay are left alone, so that a screen reader is not told them again.
function say(time, words, title) {
  if (time.textContent !== words) time.textContent = words;
  time.title = title;
}

export function refreshTimes(root = document) {
  const now = new Date();
  for (const time of root.querySelectorAll("time[data-distance], time[data-clock]")) {
    const moment = new Date(time.dateTime);
    if ("clock" in time.dataset) {
      const ahead = "until" in time.dataset && moment > now ? ` (${t("in {time}", { time: duration((moment - now) / 1000) })})` : "";
      const second = "second" in time.dataset ? "2-digit" : undefined;
      say(time, clock(moment, now, second) + ahead, moment.toLocaleString(LANGUAGE, { dateStyle: "long", timeStyle: "long" }));
      continue;
    }
    // What was still to come when the page was written never turns into "ago" under the reader's eyes.
    const seconds = (moment - now) / 1000;
    time.dataset.ahead ??= String(seconds > 0);
    const passed = time.dataset.ahead === "true" && seconds <= 0;
    say(time, passed ? t("any moment") : distance(seconds), `${clock(moment, now)}`);
  }
}

// The viewer's own zone: named once on this page, and told to the server, which writes the next one in it.
function tellZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!zone) return;
  for (const named of document.querySelectorAll("[data-zone]")) named.textContent = zone.replaceAll("_", " ");
  if (document.cookie.includes(`tz=${zone}`)) return;
  document.cookie = `tz=${zone}; path=/; max-age=31536000; samesite=strict`;
}

export function startTimes() {
  tellZone();
  refreshTimes();
  setInterval(() => refreshTimes(), 15000);
}

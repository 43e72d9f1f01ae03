// Times: distances are kept fresh, clock times move into the viewer's own zone. The words are the server's.
const MINUTE = 60;
const HOUR = 3600;

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < MINUTE) return `${whole} s`;
  const minutes = Math.round(whole / MINUTE);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  if (hours < 48) return rest ? `${hours} h ${String(rest).padStart(2, "0")} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 && days < 14 ? `${days} d ${hours % 24} h` : `${days} d`;
}

function distance(seconds) {
  if (seconds > 0) return `in ${duration(seconds)}`;
  return seconds > -5 ? "just now" : `${duration(-seconds)} ago`;
}

function clock(moment, now) {
  const time = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  if (moment.toDateString() === now.toDateString()) return time;
  if (Math.abs(moment - now) < 6 * 86400e3) return `${moment.toLocaleDateString([], { weekday: "short" })} ${time}`;
  const options = { day: "numeric", month: "short" };
  if (moment.getFullYear() !== now.getFullYear()) options.year = "numeric";
  return `${moment.toLocaleDateString([], options)} ${time}`;
}

export function refreshTimes(root = document) {
  const now = new Date();
  for (const time of root.querySelectorAll("time[data-distance], time[data-clock]")) {
    const moment = new Date(time.dateTime);
    if ("clock" in time.dataset) {
      time.textContent = clock(moment, now);
      time.title = moment.toLocaleString();
      continue;
    }
    // What was still to come when the page was written never turns into "ago" under the reader's eyes.
    const seconds = (moment - now) / 1000;
    time.dataset.ahead ??= String(seconds > 0);
    time.textContent = time.dataset.ahead === "true" && seconds <= 0 ? "any moment" : distance(seconds);
    time.title = `${clock(moment, now)}, your time`;
  }
}

export function startTimes() {
  refreshTimes();
  setInterval(refreshTimes, 15000);
}

"use strict";

// What every page needs: its data, the theme, numbers as people read them.

async function unpacked() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const grouped = (number) => String(number).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");

const UNITS = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];

// A duration with about three digits; or, with a step, as many as tell two steps apart, up to four decimals.
function duration(ns, step) {
  if (ns === 0) return "0";
  const least = step === undefined ? 0 : Math.min(Math.abs(ns), step * 1e4);
  const [unit, size] = UNITS.find(([, one]) => (least || Math.abs(ns)) >= one) ?? UNITS[3];
  const digits = step === undefined ? (Math.abs(ns) / size < 10 && size > 1 ? 1 : 0)
    : Math.max(0, Math.ceil(-Math.log10(step / size) - 1e-9));
  const [whole, fraction] = (ns / size).toFixed(digits).split(".");
  return `${grouped(whole)}${fraction ? "." + fraction : ""}\u202f${unit}`;
}

function hexadecimal(number) {
  return "0x" + number.toString(16);
}

// The colour that a variable of the style sheet is in this theme, as red, green, blue.
function colour(name) {
  const probe = document.body.appendChild(element("i"));
  probe.style.color = `var(--${name})`;
  const channels = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return channels;
}

const darkness = matchMedia("(prefers-color-scheme: dark)");
const toggle = document.getElementById("theme");

function isDark() {
  return (document.documentElement.dataset.theme ?? (darkness.matches ? "dark" : "light")) === "dark";
}

function repaint() {
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
  dispatchEvent(new Event("repaint"));
}

darkness.addEventListener("change", repaint);
matchMedia("print").addEventListener("change", repaint);
toggle.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  repaint();
});
toggle.hidden = false;
repaint();

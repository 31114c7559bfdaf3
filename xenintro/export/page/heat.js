
// The heatmap: pages by time on a canvas, with zoom, pan, a cursor, and the events of a cell.

const LETTERS = "11px ui-monospace, 'Cascadia Mono', 'DejaVu Sans Mono', Menlo, monospace";
const FIGURES = "11px system-ui, 'Segoe UI', 'Liberation Sans', sans-serif";
const BOTTOM = 38, TOP = 8;

class Heatmap {
  constructor(section, data) {
    this.section = section;
    this.data = data;
    this.canvas = section.querySelector("canvas");
    this.tip = section.querySelector(".tip");
    this.events = section.querySelector(".events");
    this.pen = this.canvas.getContext("2d");
    this.choose(section.querySelector("[name=rows]:checked").value);
    this.listen();
  }

  // Another grid: pages accessed (gfn), or pages of code.
  choose(name) {
    this.name = name;
    this.grid = this.data[name];
    const span = BigInt(this.grid.span);
    this.starts = this.grid.rows.map(BigInt);
    this.ends = this.starts.map((start) => start + span - 1n);
    this.marked = new Set(this.grid.marked);
    this.columns = Math.max(...this.grid.cells.map((cell) => cell[0])) + 1;
    for (const control of this.section.querySelectorAll("[data-for]")) {
      control.hidden = control.dataset.for !== name;
    }
    this.filter();
  }

  // Which kinds and which rows are shown.
  filter() {
    const boxes = [...this.section.querySelectorAll(`[data-for=${this.name}] [name=kind]`)];
    const shown = boxes.map((box) => box.checked);
    const every = shown.every(Boolean);
    const only = this.section.querySelector(`[data-for=${this.name}] [name=marked]`)?.checked;
    const rows = this.starts.map((_, row) => row).filter((row) => !only || this.marked.has(row));
    const place = new Map(rows.map((row, at) => [row, at]));
    this.rows = rows;
    this.cells = [];
    this.at = new Map();
    this.grid.cells.forEach(([column, row, total, ...counts], index) => {
      const some = counts.reduce((sum, count, kind) => sum + (shown[kind] ? count : 0), 0);
      const count = every ? total : some;
      if (!count || !place.has(row)) return;
      const kind = counts.findLastIndex((one, at) => one && shown[at]);
      const cell = { index, column, row: place.get(row), total, counts, count, kind: Math.max(kind, 0) };
      this.cells.push(cell);
      this.at.set(column * 65536 + cell.row, cell);
    });
    this.cells.sort((a, b) => a.count - b.count); // the busy ones are painted last
    this.highest = this.cells.at(-1)?.count ?? 1;
    this.cursor = null;
    this.show(null);
    this.reset();
    this.legend();
  }

  reset() {
    this.view = { x: 0, width: this.columns, y: 0, height: Math.max(this.rows.length, 1) };
    this.paint();
  }

  legend() {
    const pages = this.name === "gfn" ? Number(this.grid.span) : Number(this.grid.span) / 4096;
    const rows = pages === 1 ? "1 page" : `${grouped(pages)} pages`;
    const events = this.highest === 1 ? "1 event at most" : `1 to ${grouped(this.highest)} events, logarithmic`;
    this.section.querySelector(`[data-for=${this.name}] .scale`).textContent =
      `a cell is ${duration(this.grid.bin)} of ${rows}: ${events}`;
  }

  time(column) {
    return column * this.grid.bin;
  }

  // ---- painting

  paint() {
    const { canvas, pen } = this;
    const width = canvas.clientWidth;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    const height = Math.round(Math.min(560, Math.max(120, this.rows.length * 16)) + TOP + BOTTOM);
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.colours();
    pen.font = LETTERS;
    const widest = Math.max(...this.rows.map((row) => this.label(row, width).length), 1);
    this.left = Math.ceil(pen.measureText("0".repeat(widest)).width) + 16;
    this.inner = { width: width - this.left - 4, height: height - TOP - BOTTOM };
    pen.fillStyle = this.paper;
    pen.fillRect(0, 0, width, height);
    this.paintAxes(width, height);
    pen.save();
    pen.beginPath();
    pen.rect(this.left, TOP, this.inner.width, this.inner.height);
    pen.clip();
    this.paintCells();
    pen.restore();
    this.paintCursor();
  }

  colours() {
    const text = (channels) => `rgb(${channels.join(" ")})`;
    this.paper = text(colour("surface"));
    this.ink = text(colour("ink"));
    this.dim = text(colour("dim"));
    this.line = text(colour("line"));
    this.ramps = this.grid.kinds.map((kind) => {
      const low = colour(`${kind}-low`), high = colour(`${kind}-high`);
      return Array.from({ length: 16 }, (_, step) => text(low.map((one, at) =>
        Math.round(one + (high[at] - one) * step / 15))));
    });
    this.mark = text(colour("execute-low"));
  }

  x(column) {
    return this.left + (column - this.view.x) / this.view.width * this.inner.width;
  }

  y(row) {
    return TOP + (row - this.view.y) / this.view.height * this.inner.height;
  }

  paintCells() {
    const { pen } = this;
    const width = Math.max(this.inner.width / this.view.width, 1.5);
    const step = this.inner.height / this.view.height;
    const height = Math.max(step > 4 ? step - 1 : step, 1.5);
    const scale = 15 / Math.max(Math.log(this.highest), 1e-9);
    for (const cell of this.cells) {
      const x = this.x(cell.column), y = this.y(cell.row);
      if (x + width < this.left || y + height < TOP || y > TOP + this.inner.height) continue;
      pen.fillStyle = this.ramps[cell.kind][Math.round(Math.log(cell.count) * scale)];
      pen.fillRect(x, y, width, height);
    }
  }

  paintAxes(width, height) {
    const { pen, view, inner } = this;
    const bottom = TOP + inner.height;
    pen.strokeStyle = this.line;
    pen.lineWidth = 1;
    pen.fillStyle = this.dim;
    pen.font = FIGURES;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const from = this.time(view.x), range = view.width * this.grid.bin;
    const step = nice(range / Math.max(2, Math.floor(inner.width / 70)));
    for (let tick = Math.ceil(from / step) * step; tick <= from + range; tick += step) {
      const x = Math.round(this.left + (tick - from) / range * inner.width) + 0.5;
      pen.beginPath();
      pen.moveTo(x, TOP);
      pen.lineTo(x, bottom + 4);
      pen.stroke();
      const text = duration(tick, step);
      const half = pen.measureText(text).width / 2;
      pen.fillText(text, Math.min(Math.max(x, half + 2), width - half - 2), bottom + 6);
    }
    pen.fillText("time since the first event", this.left + inner.width / 2, bottom + 21);
    this.paintRows(bottom);
  }

  // Labels where there is room: first where a run of neighbouring pages begins, then between.
  paintRows(bottom) {
    const { pen, view, inner } = this;
    const step = inner.height / view.height;
    const first = Math.max(Math.floor(view.y), 0);
    const last = Math.min(Math.ceil(view.y + view.height), this.rows.length);
    const begins = (at) => at === 0 || at >= this.rows.length || this.starts[this.rows[at]] !== this.ends[this.rows[at - 1]] + 1n;
    const taken = [];
    const place = (at) => {
      const y = this.y(at) + step / 2;
      if (y < TOP || y > bottom || taken.some((one) => Math.abs(one - y) < 14)) return;
      taken.push(y);
      pen.fillText(this.label(this.rows[at], inner.width), this.left - 12, y);
    };
    pen.font = LETTERS;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let at = first; at < last; at += 1) {
      if (!begins(at)) continue;
      if (at > first && (step >= 6 || !begins(at + 1) && !begins(at + 2))) {
        pen.beginPath();
        pen.setLineDash([2, 3]);
        pen.moveTo(this.left, Math.round(this.y(at)) - 0.5);
        pen.lineTo(this.left + inner.width, Math.round(this.y(at)) - 0.5);
        pen.stroke();
        pen.setLineDash([]);
      }
      place(at);
    }
    for (let at = first; at < last; at += 1) place(at);
    pen.fillStyle = this.mark;
    for (let at = first; at < last; at += 1) {
      if (this.marked.has(this.rows[at])) {
        pen.fillRect(this.left - 6, this.y(at), 3, Math.max(step > 4 ? step - 1 : step, 1));
      }
    }
  }

  paintCursor() {
    if (!this.cursor) return;
    const { pen } = this;
    const x = this.x(this.cursor.column), y = this.y(this.cursor.row);
    const width = Math.max(this.inner.width / this.view.width, 5);
    const height = Math.max(this.inner.height / this.view.height, 5);
    pen.strokeStyle = this.ink;
    pen.lineWidth = 2;
    pen.strokeRect(x - 1.5, y - 1.5, width + 3, height + 3);
  }

  // An address never loses its low digits.
  label(row, room) {
    const text = this.grid.rows[row];
    return text.length > 12 && room < 640 ? `…${text.slice(-8)}` : text;
  }

  // ---- what is said

  title(cell) {
    const row = this.rows[cell.row];
    const what = this.name === "gfn" ? "gfn" : "code";
    const start = hexadecimal(this.starts[row]), end = hexadecimal(this.ends[row]);
    return start === end ? `${what} ${start}` : `${what} ${start}–${end}`;
  }

  times(cell) {
    const [, size] = UNITS.find(([, one]) => this.grid.bin >= one) ?? UNITS[3];
    const step = 10 ** Math.floor(Math.log10(this.grid.bin / size)) * size;
    return `${duration(this.time(cell.column), step)} – ${duration(this.time(cell.column + 1), step)}`;
  }

  sum(cell) {
    const events = `${grouped(cell.total)} ${cell.total === 1 ? "event" : "events"}`;
    if (this.name !== "gfn") return events;
    const kinds = this.grid.kinds.map((kind, at) => [cell.counts[at], kind]).filter(([count]) => count);
    return `${events}: ${kinds.map(([count, kind]) => `${grouped(count)} ${kind}`).join(", ") || "no kind"}`;
  }

  point(cell, mayMoveView) {
    this.cursor = cell;
    if (cell && mayMoveView) this.follow(cell);
    this.paint();
    this.tip.replaceChildren();
    if (!cell) return;
    this.tip.append(element("b", this.title(cell)), element("span", this.times(cell)), element("span", this.sum(cell)));
    if (this.marked.has(this.rows[cell.row])) this.tip.append(element("span", "written, then executed"));
    const x = this.x(cell.column), y = this.y(cell.row);
    const { offsetWidth, offsetHeight } = this.tip;
    const right = x + 14 + offsetWidth < this.canvas.clientWidth;
    this.tip.style.left = `${right ? x + 14 : Math.max(0, Math.min(x - 14, this.canvas.clientWidth) - offsetWidth)}px`;
    this.tip.style.top = `${Math.min(Math.max(0, y + 12), this.canvas.clientHeight - offsetHeight)}px`;
  }

  // The list of a cell's events, as many as the page holds.
  show(cell) {
    this.events.hidden = !cell;
    if (!cell) return;
    const samples = this.grid.samples[cell.index];
    this.events.querySelector("h3").textContent = `${this.title(cell)}, ${this.times(cell)}`;
    const all = samples.length === cell.total;
    this.events.querySelector(".count").textContent = all
      ? `${grouped(cell.total)} ${cell.total === 1 ? "event" : "events"}`
      : `the first ${samples.length} of ${grouped(cell.total)} events; for all of a page, give this to watch -r FILE -f:`;
    this.events.querySelector("code").textContent = all ? "" : this.expression(cell);
    this.events.querySelector("tbody").replaceChildren(...samples.map(([at, vcpu, what, rip, answer, pause]) => {
      const row = element("tr");
      row.append(
        element("td", duration(at, 1e3), "number"), element("td", `v${vcpu}`), element("td", what, "address"),
        element("td", rip || "-", "address"), element("td", answer, answer === "allow" ? "dim" : "alarm"),
        element("td", pause === null ? "-" : duration(pause), "number"),
      );
      return row;
    }));
  }

  expression(cell) {
    const row = this.rows[cell.row];
    const [start, end] = [hexadecimal(this.starts[row]), hexadecimal(this.ends[row])];
    const { field } = this.grid;
    return start === end ? `${field} == ${start}` : `${field} >= ${start} and ${field} <= ${end}`;
  }

  // ---- moving about

  limit() {
    const { view } = this;
    view.width = Math.min(Math.max(view.width, Math.min(4, this.columns)), this.columns);
    view.height = Math.min(Math.max(view.height, Math.min(2, this.rows.length || 1)), this.rows.length || 1);
    view.x = Math.min(Math.max(view.x, 0), this.columns - view.width);
    view.y = Math.min(Math.max(view.y, 0), (this.rows.length || 1) - view.height);
  }

  zoom(factor, column = this.view.x + this.view.width / 2, row = this.view.y + this.view.height / 2) {
    const { view } = this;
    const before = { ...view };
    view.width *= factor;
    view.height *= factor;
    this.limit();
    view.x = column - (column - before.x) * view.width / before.width;
    view.y = row - (row - before.y) * view.height / before.height;
    this.limit();
    this.paint();
  }

  pan(columns, rows) {
    this.view.x += columns;
    this.view.y += rows;
    this.limit();
    this.paint();
  }

  follow(cell) {
    const { view } = this;
    if (cell.column < view.x || cell.column + 1 > view.x + view.width) view.x = cell.column - view.width / 2;
    if (cell.row < view.y || cell.row + 1 > view.y + view.height) view.y = cell.row - view.height / 2;
    this.limit();
  }

  // The busiest cell under the pointer: a pixel may be many.
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    if (x < this.left || y < TOP || y > TOP + this.inner.height) return null;
    const wide = Math.max(this.view.width / this.inner.width, 0) * 2, high = this.view.height / this.inner.height * 2;
    const column = this.view.x + (x - this.left) / this.inner.width * this.view.width;
    const row = this.view.y + (y - TOP) / this.inner.height * this.view.height;
    let best = null;
    for (let c = Math.floor(column - (wide > 1 ? wide : 0)); c <= column; c += 1) {
      for (let r = Math.floor(row - (high > 1 ? high : 0)); r <= row; r += 1) {
        const cell = this.at.get(c * 65536 + r);
        if (cell && (!best || cell.count >= best.count)) best = cell;
      }
    }
    return best;
  }

  // From the cursor to the next cell in a direction that has something.
  next(dx, dy) {
    const from = this.cursor ?? { column: this.view.x, row: this.view.y };
    let best = null, least = Infinity;
    for (const cell of this.cells) {
      const x = cell.column - from.column, y = cell.row - from.row;
      const ahead = dx ? x * dx : y * dy;
      if (this.cursor && (ahead <= 0 || (dx && y))) continue;
      const distance = dx ? Math.abs(x) : Math.abs(y) * 65536 + Math.abs(x);
      if (distance < least) [best, least] = [cell, distance];
    }
    if (best) this.point(best, true);
  }

  key(event) {
    const part = 0.2;
    const { view } = this;
    const moves = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    };
    const move = moves[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move && event.shiftKey) this.pan(move[0] * view.width * part, move[1] * view.height * part);
    else if (move) this.next(...move);
    else if (event.key === "+" || event.key === "=") this.zoom(0.5, this.cursor?.column, this.cursor?.row);
    else if (event.key === "-") this.zoom(2, this.cursor?.column, this.cursor?.row);
    else if (event.key === "0") this.reset();
    else if (event.key === "Enter" && this.cursor) this.show(this.cursor);
    else if (event.key === "Escape") { this.show(null); this.point(null); }
    else return;
    event.preventDefault();
  }

  listen() {
    const { canvas, section } = this;
    section.addEventListener("change", (event) => {
      if (event.target.name === "rows") this.choose(event.target.value);
      else this.filter();
    });
    section.querySelector("[data-act=in]").addEventListener("click", () => this.zoom(0.5));
    section.querySelector("[data-act=out]").addEventListener("click", () => this.zoom(2));
    section.querySelector("[data-act=all]").addEventListener("click", () => this.reset());
    section.querySelector("[data-act=close]").addEventListener("click", () => { this.show(null); canvas.focus(); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8,
        this.view.x + (event.clientX - box.left - this.left) / this.inner.width * this.view.width,
        this.view.y + (event.clientY - box.top - TOP) / this.inner.height * this.view.height);
    }, { passive: false });
    this.dragging();
    new ResizeObserver(() => this.paint()).observe(canvas.parentElement);
    addEventListener("repaint", () => this.paint());
  }

  dragging() {
    const { canvas } = this;
    let held = null, moved = false;
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      moved = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) {
        const cell = this.under(event);
        if (cell !== this.cursor) this.point(cell);
        return;
      }
      const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      held = [event.clientX, event.clientY];
      this.pan(-dx / this.inner.width * this.view.width, -dy / this.inner.height * this.view.height);
    });
    canvas.addEventListener("pointerup", (event) => {
      held = null;
      if (moved) return;
      const cell = this.under(event);
      this.point(cell);
      this.show(cell);
    });
    canvas.addEventListener("pointercancel", () => { held = null; });
    canvas.addEventListener("pointerleave", () => { if (!held) this.point(null); });
  }
}

// 1, 2 or 5 times a power of ten, not less.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((one) => one * power >= value);
}

const heatmap = document.querySelector(".heat");
if (heatmap) {
  unpacked().then((data) => {
    window.heat = new Heatmap(heatmap, data);
    heatmap.dataset.ready = "";
  }, (error) => {
    heatmap.querySelector(".plot").replaceChildren(
      element("p", `This browser cannot show the heatmap (${error.message}): a newer one is needed.`, "empty"));
  });
}

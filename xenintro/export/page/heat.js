
// The heatmap: pages by time, with zoom, pan, a cursor, and the events of a cell.

class Heatmap extends Plot {
  constructor(section, data) {
    super();
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

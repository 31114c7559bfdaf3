
// How the heatmap is painted: the cells of a view, with their axes.

const LETTERS = "11px ui-monospace, 'Cascadia Mono', 'DejaVu Sans Mono', Menlo, monospace";
const FIGURES = "11px system-ui, 'Segoe UI', 'Liberation Sans', sans-serif";
const BOTTOM = 38, TOP = 8;

class Plot {
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
    const width = Math.max(this.inner.width / this.view.width, this.cells.length < 2000 ? 3 : 1.5);
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
}

// 1, 2 or 5 times a power of ten, not less.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((one) => one * power >= value);
}

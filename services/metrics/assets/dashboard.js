// Renews the dashboard by one stream of events, and draws its charts. Without it the page is complete and reloads itself.
"use strict";
(() => {
  const RETRY = 2000;
  // After so long without a second the connection is dead, whatever the browser thinks.
  const SILENCE = 10000;
  const DASHES = [[], [7, 3], [2, 3], [10, 3, 2, 3], [4, 4], [1, 5]];

  const byId = (id) => document.getElementById(id);
  const status = byId("status");
  const pause = byId("pause");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  let stream = null;
  let again = 0;
  let heard = 0;
  let paused = false;
  let drawn = 0;
  let times = [];
  let minutes = Number(new URLSearchParams(location.search).get("minutes")) === 15 ? 15 : 5;
  let columns = {};
  // The second that was told last.
  let tick = 0;

  // === numbers, as the server writes them ===

  const short = (value, digits) => value.toFixed(digits);
  const count = (value) => {
    const size = Math.abs(value);
    if (size < 10 && value % 1 !== 0) return short(value, 1);
    if (size < 1e4) return short(value, 0);
    return size < 1e6 ? short(value / 1e3, 1) + "k" : short(value / 1e6, 1) + "M";
  };
  const bytes = (value) => {
    if (value < 1024) return short(value, 0) + " B";
    const units = ["KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    value /= 1024;
    while (value >= 1024 && at < 3) { value /= 1024; at++; }
    return short(value, value < 10 ? 1 : 0) + " " + units[at];
  };
  const seconds = (value) => {
    if (value < 0.0009995) return short(value * 1e6, 0) + " µs";
    if (value < 0.009995) return short(value * 1e3, 2) + " ms";
    return value < 0.9995 ? short(value * 1e3, 0) + " ms" : short(value, 2) + " s";
  };
  const FORMATS = {
    count, rate: count, seconds, bytes,
    byterate: (value) => bytes(value) + "/s",
    cores: (value) => short(value, 2),
  };
  const text = (unit, value) => value == null ? "–" : FORMATS[unit](value);
  const newest = (id) => columns[id]?.[columns[id].length - 1] ?? null;

  // === charts ===

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.unit = figure.dataset.unit;
      this.title = figure.querySelector("figcaption").textContent;
      this.lines = figure.dataset.lines.split("|").map((line) => {
        const at = line.indexOf(":");
        return { column: line.slice(0, at), name: line.slice(at + 1) };
      });
      this.plot = figure.querySelector(".plot");
      this.newest = new Map([...figure.querySelectorAll("[data-newest]")].map((b) => [b.dataset.newest, b]));
      this.chart = null;
    }

    make() {
      const style = getComputedStyle(this.figure);
      const color = (name) => style.getPropertyValue(name).trim();
      const axis = {
        stroke: color("--faint"),
        font: "11px system-ui, sans-serif",
        grid: { stroke: color("--grid"), width: 1 },
        ticks: { show: false },
      };
      this.chart?.destroy();
      this.plot.replaceChildren();
      this.chart = new uPlot({
        width: this.plot.clientWidth,
        height: this.plot.clientHeight,
        legend: { show: false },
        cursor: { y: false, points: { size: 6 }, sync: { key: "troupe" } },
        padding: [8, 18, 0, 0],
        scales: { y: { range: (_, __, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [
          { ...axis, space: 70, size: 26, values: (_, at) => at.map((s) => new Date(s * 1000).toTimeString().slice(0, 8)) },
          {
            ...axis, size: 62, space: 26,
            // Bytes are counted in twos.
            ...(this.unit.startsWith("byte") && { incrs: Array.from({ length: 44 }, (_, power) => 2 ** power) }),
            values: (_, all) => all.map((value) => text(this.unit, value)),
          },
        ],
        series: [{}, ...this.lines.map((line, number) => ({
          label: line.name,
          stroke: color(`--line-${number}`),
          width: 1.75,
          dash: DASHES[number],
          ...(this.lines.length === 1 && { fill: color("--fill") }),
          points: { show: false },
        }))],
        hooks: { setCursor: [(chart) => this.tell(chart.cursor.idx)] },
      }, this.data(), this.plot);
    }

    data() {
      const none = new Array(times.length).fill(null);
      return [times, ...this.lines.map((line) => columns[line.column] ?? none)];
    }

    // Shows the numbers under the cursor, or the newest.
    tell(at) {
      for (const line of this.lines) {
        const value = at == null ? newest(line.column) : columns[line.column]?.[at] ?? null;
        const place = this.newest.get(line.column);
        if (place) place.textContent = text(this.unit, value);
      }
    }

    draw() {
      if ("optional" in this.figure.dataset) {
        const used = this.lines.some((line) => columns[line.column]?.some((value) => value > 0));
        if (this.figure.hidden === used) this.figure.hidden = !used;
      }
      if (this.figure.hidden) return;
      if (this.chart) this.chart.setData(this.data()); else this.make();
      this.tell(this.chart.cursor.idx);
      const now = this.lines.map((line) => `${line.name} ${text(this.unit, newest(line.column))}`);
      this.plot.setAttribute("aria-label", `${this.title}. Now: ${now.join(", ")}.`);
    }

    resize() {
      this.chart?.setSize({ width: this.plot.clientWidth, height: this.plot.clientHeight });
    }
  }

  const charts = [...document.querySelectorAll("figure.chart")].map((figure) => new Chart(figure));

  // === the page ===

  // Markup is made equal node by node, so that what is focused, selected, scrolled or pressed stays what it is.
  const parts = {};
  // As they were told last: a second brings those that it has changed, whether they are drawn or not.
  let latest = {};
  const equal = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) {
      from.replaceWith(to.cloneNode(true));
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    for (const { name } of [...from.attributes]) if (!to.hasAttribute(name)) from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    children(from, to);
  };
  const children = (from, to) => {
    const [old, now] = [[...from.childNodes], [...to.childNodes]];
    now.forEach((node, at) => { if (old[at]) equal(old[at], node); else from.append(node.cloneNode(true)); });
    old.slice(now.length).forEach((node) => node.remove());
  };
  const made = (markup) => {
    const template = document.createElement("template");
    template.innerHTML = markup;
    return template.content;
  };

  // A table of which a second tells some cells, and the order of its rows. As it was told last it is kept beside the page, which need
  // not be drawn every second.
  class Table {
    constructor(place) {
      this.place = place;
      this.whole("");
    }

    whole(markup) {
      this.told = made(markup);
      this.rows = Table.rows(this.told);
      this.rows.forEach(Table.name);
      this.changed = new Set();
      this.moved = false;
      this.anew = true;
    }

    // What a second has changed; false where that is about rows which are not known here.
    change({ order, made: fresh = {}, cells: told = {} }) {
      const cells = { ...told };
      for (const [number, { like, data, cells: others }] of Object.entries(fresh)) {
        const row = this.rows.get(String(like))?.cloneNode(true);
        if (!row) return false;
        Object.assign(row.dataset, data, { row: number });
        this.rows.set(number, row);
        cells[number] = others;
      }
      for (const [number, changed] of Object.entries(cells)) {
        const row = this.rows.get(number);
        if (!row) return false;
        for (const [place, markup] of Object.entries(changed)) row.cells[place].innerHTML = markup;
        Table.name(row);
        this.changed.add(number);
      }
      if (!order) return true;
      const rows = order.map((number) => [String(number), this.rows.get(String(number))]);
      const body = this.told.querySelector("tbody");
      if (!body || rows.some(([, row]) => !row)) return false;
      this.rows = new Map(rows);
      body.replaceChildren(...this.rows.values());
      this.moved = true;
      return true;
    }

    draw() {
      if (this.anew) {
        children(this.place, this.told);
      } else {
        const shown = Table.rows(this.place);
        for (const number of this.changed) {
          if (shown.has(number) && this.rows.has(number)) equal(shown.get(number), this.rows.get(number));
        }
        if (this.moved) this.arrange(shown);
      }
      this.changed.clear();
      this.anew = this.moved = false;
    }

    // Rows are moved around the one that has the focus: moved itself, it would lose it.
    arrange(shown) {
      const body = this.place.querySelector("tbody");
      for (const [number, row] of shown) if (!this.rows.has(number)) row.remove();
      const kept = document.activeElement?.closest("tr");
      let at = body.firstElementChild;
      for (const [number, told] of this.rows) {
        const row = shown.get(number) ?? told.cloneNode(true);
        while (row === kept && at !== kept) {
          const next = at.nextElementSibling;
          body.append(at);
          at = next;
        }
        if (row === at) at = at.nextElementSibling; else body.insertBefore(row, at);
      }
    }

    // Says of a row's buttons whom they are about.
    static name(row) {
      for (const button of row.querySelectorAll("button[data-act]")) {
        button.setAttribute("aria-label", `${button.textContent} ${row.dataset.name}`);
      }
    }

    static rows(within) {
      return new Map([...within.querySelectorAll("tr[data-row]")].map((row) => [row.dataset.row, row]));
    }
  }
  const tables = { workers: new Table(byId("workers")), services: new Table(byId("services")) };

  const renew = () => {
    for (const table of Object.values(tables)) table.draw();
    for (const [id, markup] of Object.entries(latest)) {
      if (parts[id] === markup) continue;
      parts[id] = markup;
      children(byId(id), made(markup));
    }
  };

  // === what is done with workers ===

  const ask = byId("ask");
  const WORDS = {
    drain: ["Drain", "It gets no new calls, and finishes those that it has, until it is undrained."],
    undrain: ["Undrain", "It gets calls again."],
    restart: ["Restart", "Its PHP processes are replaced one after another, without a failed request."],
  };
  let order = null;
  const have = async ({ act, balancer, worker, name }) => {
    const said = byId("said");
    said.className = "";
    said.textContent = `${WORDS[act][0]} ${name}: asked for …`;
    const query = new URLSearchParams({ balancer, worker });
    try {
      const answer = await fetch(`/dashboard/workers/${act}?${query}`, { method: "POST", headers: { "X-Troupe-Request": "1" } });
      const told = await answer.json();
      said.className = answer.ok ? "done" : "refused";
      said.textContent = `${WORDS[act][0]} ${name}: ${told.said ?? told.detail}`;
    } catch {
      said.className = "refused";
      said.textContent = `${WORDS[act][0]} ${name}: no answer; look whether it was done`;
    }
  };
  byId("workers").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (!button) return;
    // What was pressed, whatever stands there by the time it is confirmed.
    order = { ...button.closest("tr").dataset, ...button.dataset };
    const [word, text] = WORDS[order.act];
    byId("ask-title").textContent = `${word} ${order.name}?`;
    byId("ask-text").textContent = text;
    byId("ask-yes").textContent = word;
    ask.showModal();
  });
  byId("ask-no").addEventListener("click", () => ask.close());
  byId("ask-yes").addEventListener("click", () => { ask.close(); have(order); });
  document.documentElement.classList.add("acts");

  const say = (state, words) => {
    if (status.dataset.state === state) return;
    status.dataset.state = state;
    byId("status-text").textContent = words;
  };

  const draw = () => {
    if (document.hidden || paused) return;
    if (calm.matches && Date.now() - drawn < 5000) return;
    drawn = Date.now();
    renew();
    for (const chart of charts) chart.draw();
  };

  // === the stream ===

  const everything = (event) => {
    const told = JSON.parse(event.data);
    times = told.at.map((at) => at / 1000);
    columns = told.columns;
    latest = {};
    take(told.parts);
    drawn = 0;
    arrived(told.tick);
  };

  const second = (event) => {
    const told = JSON.parse(event.data);
    take(told.parts);
    const known = Object.entries(told.rows ?? {}).every(([id, rows]) => tables[id]?.change(rows));
    // What is missing comes with everything else, when the stream begins anew.
    if (!known || told.tick !== tick + 1) return open();
    times.push(told.at / 1000);
    for (const [id, value] of Object.entries(told.columns)) (columns[id] ??= []).push(value);
    if (times.length > minutes * 60) {
      times.shift();
      for (const column of Object.values(columns)) column.shift();
    }
    arrived(told.tick);
  };

  const take = (told) => {
    for (const [id, markup] of Object.entries(told)) if (tables[id]) tables[id].whole(markup); else latest[id] = markup;
  };

  const arrived = (now) => {
    tick = now;
    heard = Date.now();
    say(paused ? "paused" : "live", paused ? "paused" : "live");
    draw();
  };

  const close = () => {
    clearTimeout(again);
    stream?.close();
    stream = null;
  };

  const open = () => {
    close();
    heard = Date.now();
    stream = new EventSource(`/dashboard/events?minutes=${minutes}`);
    stream.addEventListener("snapshot", everything);
    stream.addEventListener("second", second);
    stream.onerror = () => {
      say("away", "no connection, trying again");
      // After an answer that is no stream the browser gives up; we do not.
      close();
      again = setTimeout(open, RETRY);
    };
  };

  // How far back: another beginning of the same stream.
  byId("spans").addEventListener("click", (event) => {
    const link = event.target.closest("a[data-minutes]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    minutes = Number(link.dataset.minutes);
    for (const other of byId("spans").querySelectorAll("a")) {
      if (other === link) other.setAttribute("aria-current", "true"); else other.removeAttribute("aria-current");
    }
    byId("charts-title").textContent = link.dataset.words;
    history.replaceState(null, "", link.href);
    if (!paused) open();
  });

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) { close(); say("paused", "paused"); } else open();
  });
  // A tab that nobody sees holds no connection: browsers have six for a server.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close(); else if (!paused) open();
  });
  dark.addEventListener("change", () => charts.forEach((chart) => { if (chart.chart) { chart.make(); chart.draw(); } }));
  new ResizeObserver(() => charts.forEach((chart) => chart.resize())).observe(byId("charts"));
  setInterval(() => { if (stream && Date.now() - heard > SILENCE) { say("away", "no connection, trying again"); open(); } }, 1000);
  open();
})();

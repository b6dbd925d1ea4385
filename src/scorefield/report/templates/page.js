(function () {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const json = (script) => JSON.parse(script.textContent);
  const hidden = new Set();

  // A short message, for eyes and for screen readers.
  const status = document.getElementById("said");
  function say(text) {
    status.textContent = text;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { status.textContent = ""; }, 2000);
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page opened from a file may have no clipboard.
      const area = document.body.appendChild(document.createElement("textarea"));
      area.value = text;
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    document.documentElement.dataset.copied = text;
    say("Copied");
  }

  // Figures: drawn when they are about to be seen, the rest when there is time.
  const family = getComputedStyle(document.body).fontFamily;
  const figures = new Map(all("script[data-plot]").map((script) => [
    document.getElementById(script.dataset.plot), script,
  ]));
  function draw(place) {
    const script = figures.get(place);
    if (!figures.delete(place)) return;
    const { data, layout } = json(script);
    for (const trace of data) trace.visible = !hidden.has(trace.legendgroup);
    Plotly.newPlot(place, data, {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family, size: 12 },
    }, { displayModeBar: false, responsive: true });
  }
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "400px" });
  for (const place of figures.keys()) near.observe(place);
  const later = window.requestIdleCallback || ((work) => setTimeout(work, 30));
  (function next() {
    const [place] = figures.keys();
    if (!place) {
      document.documentElement.dataset.drawn = Math.round(performance.now());
      return;
    }
    later(() => { draw(place); next(); });
  })();
  addEventListener("beforeprint", () => { for (const place of [...figures.keys()]) draw(place); });

  // One legend for the whole page.
  for (const button of all("[data-toggle]")) {
    button.addEventListener("click", () => {
      const label = button.dataset.toggle;
      const shown = hidden.delete(label);
      if (!shown) hidden.add(label);
      button.setAttribute("aria-pressed", shown);
      for (const part of all(`[data-model="${CSS.escape(label)}"]`)) part.hidden = !shown;
      for (const place of all(".js-plotly-plot")) {
        const own = place.data.flatMap((t, k) => (t.legendgroup === label ? [k] : []));
        if (own.length) Plotly.restyle(place, { visible: shown }, own);
      }
    });
  }

  // Films: one slider moves all panels.
  for (const film of all(".film")) {
    const { places, scales, frames } = json(film.querySelector("script"));
    const slider = film.querySelector("input");
    const images = all("img", film);
    images.forEach((image, i) => { frames[i] = frames[i].map((uri) => uri ?? image.src); });
    const show = () => {
      const k = slider ? Number(slider.value) : 0;
      images.forEach((image, i) => { image.src = frames[i][Math.min(k, frames[i].length - 1)]; });
      film.querySelector("output").textContent = places[k];
      if (slider) slider.setAttribute("aria-valuetext", places[k]);
      if (scales.length) {
        film.querySelector(".least").textContent = (-scales[k]).toPrecision(2).replace("-", "−");
        film.querySelector(".most").textContent = scales[k].toPrecision(2);
      }
    };
    show();
    if (!slider) continue;
    slider.addEventListener("input", show);
    let timer = 0;
    film.querySelector(".play").addEventListener("click", (event) => {
      if (timer) {
        timer = clearInterval(timer);
      } else {
        timer = setInterval(() => {
          slider.value = (Number(slider.value) + 1) % places.length;
          show();
        }, 600);
      }
      event.currentTarget.textContent = timer ? "❚❚" : "▶";
    });
  }

  // Tables: sorted by a column, saved as CSV.
  const text = (node) => node.textContent.replace(/\s+/g, " ").trim();
  for (const button of all(".sort")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const rows = [...body.rows];
      const down = head.getAttribute("aria-sort") === "ascending";
      const value = (row) => {
        const cell = row.cells[head.cellIndex];
        const number = parseFloat(cell.dataset.value ?? text(cell).replace("−", "-").replace(/,/g, ""));
        return Number.isNaN(number) ? Infinity : number;
      };
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)) || 0);
      body.append(...rows);
    });
  }
  const quoted = (cell) => (/^[=+\-@]/.test(cell) && Number.isNaN(Number(cell)) ? `"'${cell.replace(/"/g, '""')}"` : `"${String(cell).replace(/"/g, '""')}"`);
  for (const button of all(".csv")) {
    button.addEventListener("click", () => {
      const table = button.closest("section").querySelector(`table[data-file="${button.dataset.file}"]`);
      const [head] = [...table.tHead.rows].slice(-1);
      const groups = table.tHead.rows.length > 1
        ? [...table.tHead.rows[0].cells].flatMap((c) => Array(c.colSpan).fill(text(c))) : [];
      const names = [...head.cells].flatMap((c, k) => {
        const name = [groups[k], text(c)].filter(Boolean).join(", ");
        return k ? [name, `${name}, low`, `${name}, high`] : [name];
      });
      const lines = [...table.tBodies[0].rows].map((row) => [...row.cells].flatMap((c, k) => {
        if (!k) return [text(c)];
        const { value, low, high } = c.dataset;
        return value === undefined ? [text(c), "", ""] : [value, low, high];
      }));
      const content = [names, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
      link.download = button.dataset.file;
      link.click();
      URL.revokeObjectURL(link.href);
      document.documentElement.dataset.saved = content;
    });
  }

  // A click on a number copies it with all it depends on.
  for (const script of all("script.provenance")) {
    const { dataset, models } = json(script);
    for (const button of all(".number", script.parentNode)) {
      button.addEventListener("click", () => {
        const cell = button.closest("td");
        const row = cell.parentNode;
        const [head] = [...row.closest("table").tHead.rows].slice(-1);
        const what = [row.cells[0], head.cells[cell.cellIndex]].map(text);
        const { low, high } = cell.dataset;
        const own = models[what.find((name) => name in models)] ?? "";
        copy(`${dataset}, ${what.join(", ")}: ${text(button)}\n95 % interval: ${low} to ${high}\n${own}`.trim());
      });
    }
  }
  for (const button of all(".copy")) {
    button.addEventListener("click", () => copy(button.previousElementSibling.textContent));
  }

  // The contents: a menu where there is no room, and the place that one is at.
  const menu = document.getElementById("menu");
  const open = (yes) => menu.setAttribute("aria-expanded", yes);
  menu.addEventListener("click", () => open(menu.getAttribute("aria-expanded") !== "true"));
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  for (const link of links.values()) link.addEventListener("click", () => open(false));
  const places = [...links.keys()].map((id) => document.getElementById(id));
  const here = () => {
    const passed = places.filter((place) => place.getBoundingClientRect().top < innerHeight / 3);
    const now = links.get((passed.at(-1) ?? places[0]).id);
    for (const link of links.values()) link.removeAttribute("aria-current");
    now.setAttribute("aria-current", "location");
  };
  addEventListener("scroll", here, { passive: true });
  here();
})();

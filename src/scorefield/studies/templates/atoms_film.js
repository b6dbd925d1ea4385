(function () {
  const film = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("film");
  const choice = document.getElementById("view");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const side = film.x.length;
  const arrowLength = 1.6 * Math.min(film.x[1] - film.x[0], film.y[1] - film.y[0]);
  const told = (number) => Number(number.toPrecision(3)).toString();

  const vectors = (field) => field.v.map((part) => (part * field.largest) / 1000);
  const minus = (a, b) => a.map((part, k) => part - b[k]);
  function largest(parts) {
    let found = 0;
    for (let k = 0; k < parts.length; k += 2) {
      found = Math.max(found, Math.hypot(parts[k], parts[k + 1]));
    }
    return found;
  }

  // What is seen of a noise level: a heading, a colour, vectors, and the longest of their scale.
  function panels(frame, names) {
    const fields = [["exact field", colour("--exact"), frame.exact]];
    for (const name of names) fields.push([name, film.colours[name], frame.models[name]]);
    const longest = Math.max(...fields.map(([, , field]) => field.largest));
    const found = fields.map(([name, paint, field]) => ({
      heading: `${name}<br>largest |σs| = ${told(field.largest)}`,
      paint, longest, parts: vectors(field),
    }));
    if (names.length === 1) {
      const parts = minus(vectors(frame.models[names[0]]), vectors(frame.exact));
      const own = largest(parts);
      found.push({
        heading: `${names[0]} − exact<br>largest |σΔs| = ${told(own)}, arrows of their own scale`,
        paint: "#D6604D", longest: own, parts,
      });
    }
    return found;
  }

  // An arrow is a line from its tail to its tip and around its head.
  function arrows({ parts, longest }) {
    const x = [], y = [];
    const unit = longest > 0 ? arrowLength / longest : 0;
    for (let k = 0; k < parts.length; k += 2) {
      const u = unit * parts[k], v = unit * parts[k + 1];
      const cx = film.x[(k / 2) % side], cy = film.y[Math.floor(k / 2 / side)];
      const tip = [cx + u / 2, cy + v / 2];
      const back = [tip[0] - 0.3 * u, tip[1] - 0.3 * v];
      const left = [back[0] - 0.1 * v, back[1] + 0.1 * u];
      const right = [back[0] + 0.1 * v, back[1] - 0.1 * u];
      for (const point of [[cx - u / 2, cy - v / 2], tip, left, right, tip]) {
        x.push(point[0]);
        y.push(point[1]);
      }
      x.push(null);
      y.push(null);
    }
    return { x, y };
  }

  const axis = (k, letter) => letter + (k === 0 ? "" : k + 1);

  function traces(frame, names) {
    const found = [];
    panels(frame, names).forEach((panel, k) => {
      const common = {
        type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
        xaxis: axis(k, "x"), yaxis: axis(k, "y"),
      };
      found.push({
        ...common, x: frame.outlines.x, y: frame.outlines.y, line: { color: "#B89B4B", width: 1.2 },
      });
      found.push({
        ...common, ...arrows(panel), line: { color: panel.paint, width: 1.1 },
        fill: "toself", fillcolor: panel.paint,
      });
    });
    return found;
  }

  function headings(frame, names) {
    return panels(frame, names).map((panel, k) => ({
      text: panel.heading, font: { size: 13 }, showarrow: false, align: "center",
      xref: `${axis(k, "x")} domain`, yref: `${axis(k, "y")} domain`, x: 0.5, y: 1.01,
      xanchor: "center", yanchor: "bottom",
    }));
  }

  function title(frame) {
    return { text: `t = ${frame.t.toFixed(3)},  σ = ${told(frame.sigma)}`, x: 0.5, y: 0.99, yanchor: "top", font: { size: 16 } };
  }

  function figure(names) {
    const count = 1 + names.length + (names.length === 1 ? 1 : 0);
    const columns = Math.min(count, 3), rows = Math.ceil(count / columns);
    const wide = Math.min(place.clientWidth || 1200, 430 * columns + 40);
    const cell = (wide - 40) / columns;
    const high = 0.85 * cell * Math.min(Math.max(film.periods[1] / film.periods[0], 0.3), 3) + 100;
    const layout = {
      width: wide, height: rows * high + 170, margin: { l: 60, r: 20, t: 190, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") },
      title: title(film.frames[0]), annotations: headings(film.frames[0], names),
    };
    const gap = rows > 1 ? 0.3 / rows : 0, top = 1, each = (top - gap * (rows - 1)) / rows;
    for (let k = 0; k < count; k++) {
      const column = k % columns, row = Math.floor(k / columns);
      const line = { gridcolor: colour("--line"), linecolor: colour("--soft"), mirror: true, zeroline: false };
      const up = top - row * (each + gap);
      layout[`xaxis${k ? k + 1 : ""}`] = {
        ...line, anchor: axis(k, "y"), range: [0, film.periods[0]], constrain: "domain",
        domain: [(column + 0.12) / columns, (column + 0.97) / columns],
        title: { text: film.labels[0], standoff: 4 },
      };
      layout[`yaxis${k ? k + 1 : ""}`] = {
        ...line, anchor: axis(k, "x"), range: [0, film.periods[1]], constrain: "domain",
        scaleanchor: axis(k, "x"), domain: [Math.max(up - each, 0), up],
        title: { text: film.labels[1], standoff: 4 },
      };
    }
    const still = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: true } };
    const going = {
      mode: "immediate", fromcurrent: true, transition: { duration: 0 },
      frame: { duration: 1000 / film.fps, redraw: true },
    };
    const above = 1 + 145 / (rows * high - 60);
    layout.updatemenus = [{
      type: "buttons", direction: "left", showactive: false, x: 0, xanchor: "left", y: above,
      yanchor: "top", pad: { t: 8 }, bgcolor: "#e3e6ea", font: { color: "#1c2024" },
      buttons: [
        { label: "▶ play", method: "animate", args: [null, going] },
        { label: "❚❚ pause", method: "animate", args: [[null], still] },
      ],
    }];
    layout.sliders = [{
      active: 0, x: 0.17, len: 0.83, y: above, yanchor: "top", pad: { t: 0 },
      currentvalue: { prefix: "σ = ", font: { size: 13 } },
      steps: film.frames.map((frame, k) => ({
        label: told(frame.sigma), method: "animate", args: [[String(k)], still],
      })),
    }];
    const frames = film.frames.map((frame, k) => ({
      name: String(k), data: traces(frame, names),
      layout: { title: title(frame), annotations: headings(frame, names) },
    }));
    return { data: traces(film.frames[0], names), layout, frames, config: { displayModeBar: false } };
  }

  function draw() {
    Plotly.purge(place);
    Plotly.newPlot(place, figure(film.views[Number(choice.value)]));
  }
  choice.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  draw();
})();

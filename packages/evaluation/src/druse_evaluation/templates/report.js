(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const family = getComputedStyle(document.body).fontFamily;

  // ---- charts -------------------------------------------------------------------------------------------------------
  const theme = () => {
    const axis = { color: css("--soft"), gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line") };
    return { font: { family, color: css("--ink"), size: 12.5 }, axis };
  };
  const themed = (layout) => {
    const { font, axis } = theme();
    const out = { ...layout, font };
    for (const key of Object.keys(layout)) if (/^[xy]axis\d*$/.test(key)) out[key] = { ...layout[key], ...axis, title: { ...layout[key].title, font: { size: 12.5, color: css("--soft") } } };
    return out;
  };
  for (const [id, figure] of Object.entries(page.figures)) {
    const element = document.getElementById(id);
    if (element) Plotly.newPlot(element, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false, displaylogo: false });
  }

  // ---- crystals -----------------------------------------------------------------------------------------------------
  const sphere = (() => { // an octahedron subdivided four times and pushed onto the unit sphere
    const points = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]];
    let faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]];
    for (let level = 0; level < 3; level += 1) {
      const middles = new Map();
      const middle = (a, b) => {
        const key = a < b ? `${a},${b}` : `${b},${a}`;
        if (!middles.has(key)) {
          const p = points[a].map((x, n) => x + points[b][n]);
          const norm = Math.hypot(...p);
          middles.set(key, points.push(p.map((x) => x / norm)) - 1);
        }
        return middles.get(key);
      };
      faces = faces.flatMap(([a, b, c]) => {
        const [ab, bc, ca] = [middle(a, b), middle(b, c), middle(c, a)];
        return [[a, ab, ca], [b, bc, ab], [c, ca, bc], [ab, bc, ca]];
      });
    }
    return { points, faces };
  })();

  const emptyMesh = () => ({ x: [], y: [], z: [], i: [], j: [], k: [] });
  const addFaces = (mesh, points, faces) => {
    const first = mesh.x.length;
    for (const [x, y, z] of points) { mesh.x.push(x); mesh.y.push(y); mesh.z.push(z); }
    for (const [a, b, c] of faces) { mesh.i.push(first + a); mesh.j.push(first + b); mesh.k.push(first + c); }
  };
  const addSphere = (mesh, centre, radius) => addFaces(mesh, sphere.points.map((p) => p.map((x, n) => centre[n] + radius * x)), sphere.faces);
  const addCylinder = (mesh, from, to, radius, sides = 10) => {
    const axis = to.map((x, n) => x - from[n]);
    const length = Math.hypot(...axis) || 1;
    const d = axis.map((x) => x / length);
    const helper = Math.abs(d[0]) < 0.8 ? [1, 0, 0] : [0, 1, 0];
    const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
    let u = cross(d, helper);
    u = u.map((x) => x / Math.hypot(...u));
    const v = cross(d, u);
    const points = [], faces = [];
    for (let s = 0; s < sides; s += 1) {
      const angle = 2 * Math.PI * s / sides;
      const offset = [0, 1, 2].map((n) => radius * (Math.cos(angle) * u[n] + Math.sin(angle) * v[n]));
      points.push(from.map((x, n) => x + offset[n]), to.map((x, n) => x + offset[n]));
      const [a, b, c, e] = [2 * s, 2 * s + 1, (2 * s + 2) % (2 * sides), (2 * s + 3) % (2 * sides)];
      faces.push([a, c, b], [b, c, e]);
    }
    addFaces(mesh, points, faces);
  };
  const lighting = { ambient: 0.55, diffuse: 0.6, specular: 0.35, roughness: 0.3, fresnel: 0.05 };
  const meshTrace = (mesh, color) => ({ type: "mesh3d", ...mesh, color, lighting, lightposition: { x: 9e4, y: 2e4, z: 7e4 }, flatshading: false, hoverinfo: "skip" });

  const drawCrystal = (element, scene) => {
    const traces = [];
    for (const [symbol, { color, radius, atoms }] of Object.entries(scene.elements)) {
      const mesh = emptyMesh();
      for (const atom of atoms) addSphere(mesh, atom, radius);
      for (const [from, to] of scene.bonds[symbol] || []) addCylinder(mesh, from, to, 0.09);
      traces.push(meshTrace(mesh, color));
      traces.push({
        type: "scatter3d", mode: "markers", x: atoms.map((p) => p[0]), y: atoms.map((p) => p[1]), z: atoms.map((p) => p[2]),
        marker: { size: 12, opacity: 0.001, color }, hovertemplate: `${symbol}<extra></extra>`, showlegend: false,
      });
    }
    const line = { x: [], y: [], z: [] };
    for (const [p, q] of scene.edges) { line.x.push(p[0], q[0], null); line.y.push(p[1], q[1], null); line.z.push(p[2], q[2], null); }
    traces.push({ type: "scatter3d", mode: "lines", ...line, line: { color: css("--soft"), width: 2 }, hoverinfo: "skip", showlegend: false });
    const letters = Object.entries(scene.axes);
    traces.push({
      type: "scatter3d", mode: "text", text: letters.map(([name]) => `<i>${name}</i>`), x: letters.map(([, p]) => p[0]), y: letters.map(([, p]) => p[1]),
      z: letters.map(([, p]) => p[2]), textfont: { color: css("--soft"), size: 13, family }, hoverinfo: "skip", showlegend: false,
    });
    const axis = { visible: false, showspikes: false, range: [-scene.size, scene.size] };
    Plotly.newPlot(element, traces, {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false, font: { family },
      scene: {
        xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", bgcolor: "rgba(0,0,0,0)", dragmode: "orbit",
        camera: { eye: { x: 1.24, y: 0.5, z: 0.36 } },
      },
    }, { displayModeBar: false, responsive: true, scrollZoom: false });
  };
  const pending = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      pending.unobserve(entry.target);
      drawCrystal(entry.target, page.crystals[Number(entry.target.dataset.crystal)].scene);
    }
  }, { rootMargin: "1200px" });
  for (const element of document.querySelectorAll(".view[data-crystal]")) pending.observe(element);

  // ---- files --------------------------------------------------------------------------------------------------------
  const save = (name, text, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const button of document.querySelectorAll("button[data-cif]")) {
    const crystal = page.crystals[Number(button.dataset.cif)];
    button.addEventListener("click", () => save(`${crystal.name}.cif`, crystal.cif, "chemical/x-cif"));
  }

  // ---- table --------------------------------------------------------------------------------------------------------
  const { columns, rows, shown } = page.table;
  const head = document.querySelector("#table thead"), body = document.querySelector("#table tbody");
  const index = Object.fromEntries(columns.map((name, n) => [name, n]));
  const LIMIT = 500;
  let sorted = null, descending = false, all = false, wanted = "";
  const format = (value, column) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "boolean") return value ? "yes" : "no";
    return typeof value === "number" && column.digits !== null ? value.toFixed(column.digits) : String(value);
  };
  const render = () => {
    let chosen = rows;
    if (wanted) chosen = chosen.filter((row) => shown.some((column) => format(row[index[column.name]], column).toLowerCase().includes(wanted)));
    if (sorted !== null) {
      const n = index[sorted];
      chosen = [...chosen].sort((p, q) => {
        const [a, b] = [p[n], q[n]];
        if (a === null || b === null) return (a === null) - (b === null);
        return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
      });
    }
    const visible = all ? chosen : chosen.slice(0, LIMIT);
    body.replaceChildren(...visible.map((row) => {
      const line = document.createElement("tr");
      for (const column of shown) {
        const cell = document.createElement("td");
        cell.textContent = format(row[index[column.name]], column);
        if (column.digits !== null) cell.className = "n";
        if (["message", "failed_tests", "element_flags"].includes(column.name)) { cell.className = "msg"; cell.title = cell.textContent; }
        line.append(cell);
      }
      return line;
    }));
    document.getElementById("count").textContent = `${visible.length} of ${rows.length} crystals`;
    document.getElementById("more").hidden = visible.length === chosen.length;
  };
  const headings = document.createElement("tr");
  for (const column of shown) {
    const cell = document.createElement("th");
    cell.textContent = column.label;
    cell.title = column.meaning;
    cell.tabIndex = 0;
    if (column.digits !== null) cell.className = "n";
    const sort = () => { descending = sorted === column.name ? !descending : false; sorted = column.name; render(); };
    cell.addEventListener("click", sort);
    cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    headings.append(cell);
  }
  head.append(headings);
  document.getElementById("filter").addEventListener("input", (event) => { wanted = event.target.value.trim().toLowerCase(); render(); });
  document.getElementById("more").addEventListener("click", () => { all = true; render(); });
  document.getElementById("csv").addEventListener("click", () => {
    const quote = (value) => (value === null || value === undefined ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    save("crystals.csv", [columns.join(","), ...rows.map((row) => row.map(quote).join(","))].join("\n") + "\n", "text/csv");
  });
  render();

  // ---- dark and light -----------------------------------------------------------------------------------------------
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const [id, figure] of Object.entries(page.figures)) if (document.getElementById(id)) Plotly.relayout(id, themed(figure.layout));
  });
})();

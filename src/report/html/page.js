"use strict";
// Builds the tables from the data block, and makes tables and spider plots interactive. Strings from the data enter the page
// as text only, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  // Texts quote names and commands as Markdown does, between backticks.
  const prose = (text) => {
    const parts = String(text).split("`");
    return parts.map((part, i) => {
      if (i % 2 === 0) return part;
      return i + 1 < parts.length ? element("code", { textContent: part }) : "`" + part;
    });
  };

  // The selected filters; an empty string matches everything.
  const chosen = { suite: "", protocol: "", sensor: "", model: "" };

  // --- provenance -------------------------------------------------------------------------------------------------

  const dialog = document.getElementById("provenance");
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  // A click outside the dialog closes it.
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  const pairs = (object) => Object.entries(object ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
  const seconds = (number) => number < 120 ? `${number.toFixed(1)} s` : `${(number / 60).toFixed(1)} min`;

  const coverage = (covered) => ({
    whole: "the whole model",
    random: "no parameter: all are random",
    partial: covered.parameters === undefined
      ? "part of the model; the rest is random"
      : `${covered.loaded} of ${covered.parameters} parameters; the rest is random`,
  })[covered.state];

  const facts = (record) => {
    const made = record.provenance, interval = record.interval;
    return [
      ["Value", `${record.value.toFixed(record.decimals)}${record.unit} (${record.metric})`],
      ["Interval", interval && `${interval.low.toFixed(record.decimals)} to ${interval.high.toFixed(record.decimals)} (${100 * interval.level} %)`],
      ["Other scores", Object.entries(record.scores).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ")],
      ["Data", record.demo ? "generated (demo): not a benchmark number" : ""],
      ["Task", `${record.cell.task}, ${record.cell.partition}`],
      ["Protocol", record.cell.protocol],
      ["Seed", String(record.cell.seed)],
      ["Selected", pairs(record.selected)],
      ["Samples", pairs(record.samples)],
      ["Weights", made.weights],
      ["Weights cover", coverage(made.coverage)],
      ["Notes", (record.notes ?? []).map((note) => note.text).join("; ")],
      ["Settings fingerprint", record.settings],
      ["Record fingerprint", record.fingerprint],
      ["Data fingerprint", made.data],
      ["Sensor", made.sensor],
      ["Bands", `${made.bands.join(", ")} (${made["band-names"]})`],
      ["Imputed bands", made.imputed.map((pair) => Array.isArray(pair) ? `${pair[0]} for ${pair[1]}` : `${pair.source} for ${pair.target}`).join(", ")],
      ["Normalisation", made.normalization],
      ["Protocol's settings", pairs(record["protocol-settings"])],
      ["Input", made["image-size"] ? `${made["image-size"]} x ${made["image-size"]} pixels` : "unknown"],
      ["Declared, not checked", pairs(made.declared)],
      ["Given besides pixels", (made.metadata ?? []).join(", ")],
      ["Not given", (made["stand-ins"] ?? []).join("; ")],
      ["Device", `${made.device}, ${made.threads} threads`],
      ["Wall time", seconds(made["wall-seconds"])],
      ["Finished", new Date(1000 * made.finished).toISOString().replace("T", " ").replace(".000Z", " UTC")],
      ["Program", `terrabench ${made.terrabench}`],
      ["Git revision", (made["git-revision"] ?? "unknown, or not built from a checkout") + (made["git-dirty"] ? ", changed since" : "")],
      ["Config files", pairs(made.configs)],
      ["Contributed by", made.origin],
      ["File", record.file],
    ].filter(([, value]) => value);
  };

  const list = (rows) => {
    const made = element("dl");
    for (const [name, value] of rows) {
      made.append(element("dt", { textContent: name }), element("dd", {}, ...prose(value)));
    }
    return made;
  };

  const explain = (table, row, column, cell) => {
    const body = dialog.querySelector(".body");
    body.replaceChildren(element("h3", { textContent: `${row.label} ${row.backbone}: ${column.heading}` }));
    if (cell.records.length === 0) {
      body.append(list([["Value", `${cell.value}${column.unit} (${column.metric})`], ["Published", cell.origin?.printed ?? table.source], ["Measured", cell.origin?.text ?? "not known"]]));
    }
    if (cell.published !== null) {
      body.append(list([
        ["Published", `${cell.published}${column.unit}`],
        ["Difference", cell.difference],
        ["Published value in the interval", cell.inside === null ? "no interval" : cell.inside ? "yes" : "no"],
      ]));
    }
    for (const index of cell.records) body.append(list(facts(data.records[index])));
    dialog.showModal();
  };

  // --- tables -----------------------------------------------------------------------------------------------------

  const cellOf = (table, row, column, cell) => {
    if (cell === null) return element("td", { textContent: "-" });
    const button = element("button", { type: "button", textContent: cell.value });
    button.className = cell.mark === "bold" ? "best" : cell.mark === "italic" ? "second" : "";
    button.addEventListener("click", () => explain(table, row, column, cell));
    const more = [cell.spread && `± ${cell.spread}`, cell.low && `[${cell.low}, ${cell.high}]`, cell.difference && `(${cell.difference})`, cell.marks.join(",")];
    const text = more.filter(Boolean).join(" ");
    // Copied and rerun values have a mark, which the legend below the table explains.
    const mark = cell.origin?.mark ? element("sup", { textContent: cell.origin.mark, title: cell.origin.text }) : null;
    return element("td", {}, button, mark, text ? element("small", { textContent: ` ${text}` }) : null);
  };

  const drawn = [];

  const draw = (section, table) => {
    const sort = { column: null, down: true };
    const body = element("tbody"), head = element("tr");
    const titles = [
      { heading: "Model", metric: "", text: (row) => row.label },
      { heading: "Backbone", metric: "", text: (row) => row.backbone },
      ...table.columns.map((column, i) => ({ ...column, number: (row) => row.cells[i]?.number ?? null, i })),
    ];
    const heads = titles.map((title) => {
      // Keep "100 %" on one line.
      const button = element("button", { type: "button", textContent: title.heading.replaceAll(" %", "\u00a0%") });
      const th = element("th", { scope: "col" }, button, title.metric ? element("small", { textContent: ` ${title.metric}`, className: "quiet" }) : null);
      button.addEventListener("click", () => {
        // Numbers start with the best, words with A; the third click restores the source's order.
        const first = title.number !== undefined && !title.lower;
        if (sort.column !== title) Object.assign(sort, { column: title, down: first });
        else if (sort.down === first) sort.down = !first;
        else sort.column = null;
        update();
      });
      head.append(th);
      return th;
    });
    const shownColumn = (column) => !chosen.sensor || column.sensor === chosen.sensor;
    const shownRow = (row) =>
      (!chosen.protocol || row.origin === "published" || row.protocols.includes(chosen.protocol)) &&
      `${row.label} ${row.backbone}`.toLowerCase().includes(chosen.model.toLowerCase());
    const compare = (a, b) => {
      const title = sort.column;
      if (title.number === undefined) return title.text(a).localeCompare(title.text(b)) * (sort.down ? -1 : 1);
      const [x, y] = [title.number(a), title.number(b)];
      // Missing values are last in either direction.
      if (x === null || y === null) return (x === null) - (y === null);
      return (sort.down ? y - x : x - y);
    };
    const wrapper = element("div", { className: "table" },
      element("h3", { textContent: `${table.title}${section.demo ? " (demo)" : ""}` }),
      element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: table.title }, element("table", {}, element("thead", {}, head), body)),
      element("p", { textContent: `${table.source ? `Published: ${table.source}.` : "No published values."}${section.demo ? " Demo rows are not compared with published values." : ""}` }),
      ...table.footnotes.map((note) => element("p", {}, ...prose(`${note.mark} ${note.text}.`))));
    const update = () => {
      const rows = table.rows.filter(shownRow);
      if (sort.column) rows.sort(compare);
      heads.forEach((th, i) => {
        const mine = sort.column === titles[i];
        if (mine) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
        else th.removeAttribute("aria-sort");
        if (titles[i].i !== undefined) th.hidden = !shownColumn(titles[i]);
      });
      body.replaceChildren(...rows.map((row) => {
        const made = element("tr", { className: row.origin === "published" ? "" : "ours" },
          element("th", { scope: "row", textContent: row.label }),
          element("td", { className: "words", textContent: row.backbone }));
        table.columns.forEach((column, i) => {
          if (shownColumn(column)) made.append(cellOf(table, row, column, row.cells[i]));
        });
        return made;
      }));
      const protocols = !chosen.protocol || table.protocols.includes(chosen.protocol);
      wrapper.hidden = rows.length === 0 || !protocols || !table.columns.some(shownColumn);
    };
    drawn.push(update);
    return wrapper;
  };

  // --- filters ----------------------------------------------------------------------------------------------------

  const sections = [...document.querySelectorAll("section[data-section]")];
  const update = () => {
    drawn.forEach((one) => one());
    sections.forEach((section) => {
      section.hidden = chosen.suite !== "" && section.dataset.section !== chosen.suite;
      // Pictures cover all protocols and sensors, so only the suite filters them.
      const tables = [...section.querySelectorAll(".table")];
      section.querySelector(".nothing").hidden = tables.some((table) => !table.hidden);
    });
  };
  const options = (name, entries) => {
    const select = document.getElementById(`filter-${name}`);
    for (const [value, text] of entries) select.append(element("option", { value, textContent: text }));
    select.addEventListener("change", () => { chosen[name] = select.value; update(); });
  };
  const every = (of) => [...new Set(data.sections.flatMap((section) => section.tables.flatMap(of)))].sort().map((name) => [name, name]);
  options("suite", data.sections.map((section) => [section.folder, section.title]));
  options("protocol", every((table) => table.protocols));
  options("sensor", every((table) => table.columns.map((column) => column.sensor)));
  const search = document.getElementById("filter-model");
  search.addEventListener("input", () => { chosen.model = search.value.trim(); update(); });

  data.sections.forEach((section, i) => {
    const place = sections[i].querySelector(".tables");
    place.append(...section.tables.map((table) => draw(section, table)));
  });

  // --- spider plots -----------------------------------------------------------------------------------------------

  for (const figure of document.querySelectorAll("figure")) {
    const groups = [...figure.querySelectorAll("g[data-owner]")];
    const owners = [...new Set(groups.map((group) => group.dataset.owner))];
    if (owners.length === 0) continue;
    const models = element("fieldset", { className: "models" }, element("legend", { textContent: "Models shown" }));
    for (const owner of owners) {
      const box = element("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => {
        for (const group of groups.filter((group) => group.dataset.owner === owner)) {
          group.style.display = box.checked ? "" : "none";
        }
      });
      models.append(element("label", {}, box, owner));
    }
    figure.prepend(models);
  }

  update();
  document.documentElement.dataset.ready = "yes";
})();

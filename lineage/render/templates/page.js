// The graph, its search and its folds. All text is set by textContent or drawn on a canvas; facts are cloned from the
// outline, which the template escaped.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse(document.querySelector('script[type="application/json"]').textContent);
  const CODE = "all code"; // As the template names its facts.
  const READABLE = 0.62; // Below this zoom labels can't be read: rather show a part.
  const FEW = 24; // With more runs than that, matrix instances start as one box.

  // The outline's ids make links work without a script; with it, a fragment selects in the graph and mustn't scroll.
  const facts = new Map();
  for (const element of document.querySelectorAll("#outline [data-node]")) facts.set(element.dataset.node, element);
  for (const element of document.querySelectorAll("#outline [id]")) element.removeAttribute("id");
  $("app").hidden = false;

  const runs = data.nodes.filter((node) => node.shape === "run");
  const code = { id: CODE, shape: "code", name: "code", note: data.code.length + " files", numbers: {}, find: data.code.join("\n").toLowerCase() };
  const nodes = new Map([...data.nodes, code].map((node) => [node.id, node]));
  const makers = new Map();
  const readers = new Map([[CODE, data.readers]]);
  const push = (map, key, value) => map.set(key, [...(map.get(key) ?? []), value]);
  for (const [from, to] of data.arrows) {
    if (nodes.get(to).shape === "file") push(makers, to, from);
    else push(readers, from, to);
  }
  const state = {
    matrix: runs.length > FEW, code: false, all: false,
    folded: new Set(), // Boxes of runs.
    single: new Set(), // Files that have a box of their own, as someone asked for them.
    chosen: null, // A node's id.
  };
  $("matrix").checked = state.matrix;

  // The plan: which nodes share a box, and the arrows between boxes. An arrow is implied where a longer way says it.

  const add = (map, key, value) => map.set(key, (map.get(key) ?? new Set()).add(value));
  const runBox = (id) => (state.matrix && nodes.get(id).group ? "group:" + nodes.get(id).group : id);

  function upstream(into, starts, stops = new Set()) {
    const seen = new Set(starts);
    for (const box of seen) {
      if (!stops.has(box)) for (const above of into.get(box) ?? []) seen.add(above);
    }
    return seen;
  }

  function order() {
    // Whether a run's box is above another's, by whatever way.
    const into = new Map();
    for (const [file, made] of makers) {
      for (const reader of readers.get(file) ?? []) for (const maker of made) add(into, runBox(reader), runBox(maker));
    }
    const known = new Map();
    const isAbove = (a, b) => {
      if (!known.has(b)) known.set(b, upstream(into, [b]));
      return a !== b && known.get(b).has(a);
    };
    return { into, isAbove };
  }

  function impliedReads(node, { into, isAbove }) {
    const reading = [...new Set((readers.get(node.id) ?? []).map(runBox))];
    const made = (makers.get(node.id) ?? []).map(runBox);
    const longer = (maker, reader) => [...(into.get(reader) ?? [])].some((other) => isAbove(maker, other));
    if (made.length) return new Set(reading.filter((reader) => made.every((maker) => longer(maker, reader))));
    return new Set(reading.filter((reader) => reading.some((other) => isAbove(other, reader))));
  }

  function fileBox(node, reading) {
    if (node.shape !== "file" || node.target || state.single.has(node.id)) return node.id;
    return "files:" + [...new Set(makers.get(node.id).map(runBox)), ">", ...reading].join(" ");
  }

  let plan;
  function makePlan() {
    plan = { box: new Map(), members: new Map(), into: new Map(), implied: new Set() };
    const ordered = order();
    for (const node of nodes.values()) {
      if (node.id === CODE && !state.code) continue;
      const reading = new Set((readers.get(node.id) ?? []).map(runBox));
      const implied = node.shape === "run" ? new Set() : impliedReads(node, ordered);
      const box = node.shape === "run" ? runBox(node.id) : fileBox(node, [...reading].filter((r) => state.all || !implied.has(r)));
      plan.box.set(node.id, box);
      push(plan.members, box, node.id);
      for (const maker of makers.get(node.id) ?? []) add(plan.into, box, runBox(maker));
      for (const reader of reading) {
        add(plan.into, reader, box);
        if (implied.has(reader)) plan.implied.add(box + ">" + reader);
      }
    }
  }

  function visible() {
    const kept = new Map();
    for (const [to, sources] of plan.into) {
      for (const from of sources) if (state.all || !plan.implied.has(from + ">" + to)) add(kept, to, from);
    }
    const chosen = [...state.single].map((id) => plan.box.get(id));
    const targets = data.nodes.filter((node) => node.target).map((node) => plan.box.get(node.id));
    const seen = upstream(kept, [...targets, ...chosen], state.folded);
    if (state.all) {
      for (const [box, [first]] of plan.members) {
        if (nodes.get(first).shape === "file" && [...plan.into.get(box)].some((run) => seen.has(run))) seen.add(box);
      }
    }
    return { seen, kept };
  }

  // Boxes

  const canvas = document.createElement("canvas").getContext("2d");
  const FONT = getComputedStyle(document.body).fontFamily;
  const basename = (path) => path.slice(path.lastIndexOf("/") + 1);
  const shorten = (text, longest) => {
    const half = Math.floor(longest / 2);
    return text.length <= longest ? text : text.slice(0, half - 1) + "…" + text.slice(text.length - half);
  };
  const listed = (names, longest) => {
    let text = shorten(names[0], longest);
    for (const name of names.slice(1)) {
      if (text.length + name.length + 2 > longest) return text + ", …";
      text += ", " + name;
    }
    return text;
  };
  const rounded = (words) => (/^-?\d+\.\d{5,}/.test(words) ? String(Number(Number(words).toPrecision(5))) : shorten(words, 14));

  function labelOf(members, hidden) {
    const [first] = members;
    const times = members.length > 1 ? " ×" + members.length : "";
    if (first.shape === "run") {
      return [times ? first.group + times : shorten(first.name, 34), hidden ? "▸ " + hidden + " boxes folded" : ""];
    }
    if (first.shape !== "file") return [shorten(first.name, 34), first.shape === "source" ? "" : shorten(first.note, 34)];
    const numbers = members.flatMap((node) => Object.entries(node.numbers));
    const told = numbers.length > 1 ? [numbers.length + " numbers"] : numbers.map(([key, words]) => shorten(key, 30) + " = " + rounded(words));
    if (times) {
      const names = [...new Set(members.map((node) => basename(node.name)))];
      return [names.length === 1 ? names[0] + times : members.length + " files", names.length === 1 ? "" : listed(names, 34)];
    }
    const name = basename(first.name);
    const folder = first.name.slice(0, first.name.length - name.length);
    return [...(first.name.length > 32 ? [shorten(folder, 32), shorten(name, 32)] : [first.name]), ...told];
  }

  function element(box, hidden) {
    const members = plan.members.get(box).map((id) => nodes.get(id));
    const lines = labelOf(members, hidden).filter(Boolean);
    canvas.font = "12px " + FONT;
    const width = Math.ceil(Math.max(...lines.map((line) => canvas.measureText(line).width))) + 22;
    const classes = [members[0].shape, members.some((node) => node.target) ? "target" : "", hidden ? "folded" : ""];
    return { group: "nodes", data: { id: box, label: lines.join("\n"), width, height: 10 + 15 * lines.length }, classes };
  }

  // Drawing

  const cy = cytoscape({ container: $("graph"), minZoom: 0.05, maxZoom: 3, autoungrabify: true, boxSelectionEnabled: false });

  function colours() {
    const css = getComputedStyle(document.documentElement);
    const c = (name) => css.getPropertyValue("--" + name).trim();
    const fill = (name) => ({ "background-color": c(name), "border-color": c(name + "-line") });
    cy.style([
      { selector: "node", style: {
        shape: "round-rectangle", width: "data(width)", height: "data(height)", label: "data(label)", "text-wrap": "wrap",
        "text-valign": "center", "text-halign": "center", "font-size": 12, "font-family": FONT, "line-height": 1.25,
        color: c("ink"), "border-width": 1, "corner-radius": 12, ...fill("file") } },
      { selector: "node.run", style: { ...fill("run"), "corner-radius": 3 } },
      { selector: "node.source, node.pins", style: fill("source") },
      { selector: "node.unpinned", style: fill("unpinned") },
      { selector: "node.code", style: fill("code") },
      { selector: "node.target", style: { ...fill("target"), "border-width": 2 } },
      { selector: "node.folded", style: { "border-style": "double", "border-width": 4 } },
      { selector: "edge", style: {
        width: 1.3, "line-color": c("arrow"), "target-arrow-color": c("arrow"), "target-arrow-shape": "triangle",
        "arrow-scale": 0.8, "curve-style": "bezier" } },
      { selector: "edge.implied", style: { display: "none", "line-style": "dashed", width: 1 } },
      { selector: "edge.shown", style: { display: "element" } },
      { selector: ".dimmed", style: { opacity: 0.18 } },
      { selector: "node.match", style: { "border-color": c("match"), "border-width": 4 } },
      { selector: "edge.near", style: { "line-color": c("chosen"), "target-arrow-color": c("chosen"), width: 2 } },
      { selector: "node.chosen", style: { "border-color": c("chosen"), "border-width": 3 } },
    ]);
  }

  function draw(keep) {
    const before = keep && cy.getElementById(keep).nonempty() ? { ...cy.getElementById(keep).renderedPosition() } : null;
    makePlan();
    const { seen, kept } = visible();
    const elements = [...seen].map((box) => {
      const folded = state.folded.has(box) ? [...upstream(kept, [box])].filter((above) => !seen.has(above)).length : 0;
      return element(box, folded);
    });
    for (const to of seen) {
      for (const from of plan.into.get(to) ?? []) {
        const id = from + ">" + to;
        const classes = plan.implied.has(id) ? ["implied"] : [];
        if (seen.has(from)) elements.push({ group: "edges", data: { id, source: from, target: to }, classes });
      }
    }
    cy.elements().remove();
    cy.add(elements);
    cy.elements().not(".implied").layout({ name: "dagre", rankDir: "TB", nodeSep: 16, edgeSep: 8, rankSep: 19, fit: false }).run();
    mark();
    if (before) {
      const after = cy.getElementById(keep).renderedPosition();
      cy.panBy({ x: before.x - after.x, y: before.y - after.y });
    } else {
      overview();
    }
  }

  function overview() {
    cy.fit(undefined, 24);
    const readable = Math.min(Math.max(cy.zoom(), READABLE), 1.2);
    if (readable === cy.zoom()) return;
    const fits = cy.zoom() >= READABLE;
    cy.zoom(readable);
    cy.center(fits ? undefined : cy.nodes(".target"));
    if (!fits) cy.panBy({ x: 0, y: cy.height() / 2 - 60 });
  }

  // Selection: the fragment names a run, a file, or a number in a file.

  const names = new Map(data.nodes.filter((node) => node.shape !== "pins").map((node) => [node.name, node.id]));
  for (const run of runs) names.set(run.name, run.id);

  function named(fragment) {
    if (names.has(fragment)) return [names.get(fragment), null];
    for (let cut = fragment.lastIndexOf(":"); cut > 0; cut = fragment.lastIndexOf(":", cut - 1)) {
      const path = fragment.slice(0, cut);
      if (names.has(path)) return [names.get(path), fragment.slice(cut + 1)];
    }
    if (nodes.has(fragment)) return [fragment, null];
    const instance = (node) => node.group !== "" && node.group === fragment;
    const part = (node) => fragment !== "" && (node.name.startsWith(fragment + "/") || fragment.startsWith(node.name + "/"));
    return [(data.nodes.find(instance) ?? data.nodes.find(part))?.id ?? null, null];
  }

  const fragmentOf = (id) => "#" + encodeURI(["pins", "code"].includes(nodes.get(id).shape) ? id : nodes.get(id).name);
  const chosenBox = () => cy.getElementById(plan.box.get(state.chosen) ?? "");

  function select() {
    let fragment = location.hash.slice(1);
    try {
      fragment = decodeURIComponent(fragment);
    } catch {
      // A lone % is itself.
    }
    const [id, key] = named(fragment);
    state.chosen = id;
    if (id !== null && chosenBox().empty()) reveal(id);
    mark();
    panel(id, key);
    const box = chosenBox();
    const at = box.nonempty() ? box.renderedBoundingBox() : null;
    if (at && (at.x1 < 0 || at.y1 < 0 || at.x2 > cy.width() || at.y2 > cy.height())) cy.center(box);
    scrollTo(0, 0);
  }

  function reveal(id) {
    if (id === CODE) state.code = $("code").checked = true;
    state.folded.clear();
    if (nodes.get(id).shape === "file") state.single.add(id);
    draw();
  }

  function mark() {
    const query = $("search").value.trim().toLowerCase();
    const boxes = query ? new Set(matches(query).map((id) => plan.box.get(id))) : null;
    cy.batch(() => {
      cy.elements().removeClass("match dimmed chosen near shown");
      if (state.all) cy.edges().addClass("shown");
      if (boxes) {
        cy.nodes().forEach((node) => void node.addClass(boxes.has(node.id()) ? "match" : "dimmed"));
        cy.edges().addClass("dimmed");
      }
      const box = chosenBox().addClass("chosen").removeClass("dimmed");
      if (!boxes) box.connectedEdges().addClass("near shown");
    });
  }

  // The panel

  const make = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const KINDS = { run: "run", file: "file", source: "raw source", unpinned: "unpinned source", pins: "raw sources", code: "all code" };

  function panel(id, key) {
    const node = nodes.get(id);
    const box = id === null ? null : plan.box.get(id);
    const members = id === null ? ["about"] : key === null ? plan.members.get(box) : [id];
    const several = members.length > 1;
    const title = id === null ? "What was asked for" : several && node.group ? node.group : several ? members.length + " files" : node.name;
    const shown = [make("div", id === null ? "" : several ? members.length + " in one box" : KINDS[node.shape], "kind"), make("h2", title)];
    if (key !== null) shown.push(number(key, node.numbers[key]));
    if (node?.shape === "run") shown.push(actions(box));
    for (const member of members) {
      if (several) shown.push(make("h3", nodes.get(member).name));
      const copy = facts.get(member).cloneNode(true);
      for (const fold of several ? [] : copy.querySelectorAll(":scope > details:first-of-type")) fold.open = true;
      for (const told of copy.querySelectorAll("[data-key]")) if (told.dataset.key === key) told.remove();
      shown.push(copy);
    }
    $("panel").replaceChildren(...shown);
    $("panel").scrollTop = 0;
  }

  function number(key, words) {
    const made = make("div", key, "number");
    made.append(make("b", words ?? "its value is not on this page"));
    return made;
  }

  function actions(box) {
    const made = make("div", "", "actions");
    const button = make("button", state.folded.has(box) ? "Unfold what is above" : "Fold what is above");
    button.addEventListener("click", () => fold(box));
    made.append(button);
    return made;
  }

  function fold(box) {
    if (!state.folded.delete(box)) state.folded.add(box);
    draw(box);
    panel(state.chosen, null);
  }

  // Search

  let at = -1;
  const matches = (query) => [...plan.box.keys()].filter((id) => nodes.get(id).find.includes(query));

  function search(step) {
    const query = $("search").value.trim().toLowerCase();
    const found = query ? matches(query) : [];
    at = step && found.length ? (at < 0 && step < 0 ? found.length - 1 : (at + step + found.length) % found.length) : -1;
    $("found").value = !query ? "" : at < 0 ? found.length + " found" : at + 1 + " of " + found.length;
    mark();
    if (at >= 0) {
      history.replaceState(null, "", fragmentOf(found[at]));
      select();
      cy.center(chosenBox());
    }
  }

  $("search").addEventListener("input", () => search(0));
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") search(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") {
      $("search").value = "";
      search(0);
    }
  });

  // Clicks

  cy.on("tap", "node", (event) => {
    const box = event.target.id();
    const id = plan.members.get(box)[0];
    const again = plan.box.get(state.chosen) === box;
    if (again && nodes.get(id).shape === "run") fold(box);
    else location.hash = fragmentOf(id);
  });
  cy.on("tap", (event) => {
    if (event.target === cy) location.hash = "";
  });
  for (const name of ["matrix", "code", "all"]) {
    $(name).addEventListener("change", () => {
      state[name] = $(name).checked;
      state.folded.clear();
      state.single.clear();
      if (!state.code && state.chosen === CODE) history.replaceState(null, "", "#");
      draw();
      select();
    });
  }
  const zoom = (factor) => cy.zoom({ level: cy.zoom() * factor, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
  $("larger").addEventListener("click", () => zoom(1.3));
  $("smaller").addEventListener("click", () => zoom(1 / 1.3));
  $("fit").addEventListener("click", () => cy.fit(undefined, 24));
  $("unfold").addEventListener("click", () => {
    state.folded.clear();
    draw();
  });
  addEventListener("hashchange", select);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colours);

  colours();
  draw();
  select();
})();

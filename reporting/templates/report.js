// The denoising view: replays a trace up to the slider's step and shows what is fed back at a masked position.
// Tokens are untrusted text: they enter the page through textContent only.
(() => {
  "use strict";
  const view = document.querySelector(".denoising");
  if (!view) return;
  const traces = [...document.querySelectorAll("script.trace")].map((node) => JSON.parse(node.textContent));
  const select = view.querySelector("select");
  const slider = view.querySelector("input");
  const status = view.querySelector("output");
  const page = view.querySelector(".tokens");
  const panel = view.querySelector(".guesses");
  let picked = null;

  const element = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const visible = (token) => token.replace(/\n/g, "\u23CE").replace(/\t/g, "\u21E5").replace(/ /g, "\u2423") || "(empty)";

  const stateAt = (trace, index) => {
    const tokens = new Array(trace.length).fill(null);
    for (const step of trace.steps.slice(0, index + 1)) for (const [position, token] of step.set) tokens[position] = token;
    return tokens;
  };

  const explain = (position) => {
    const trace = traces[Number(select.value)];
    const fed = trace.steps[Number(slider.value)].fed.find((row) => row[0] === position);
    panel.replaceChildren();
    if (position === null) {
      panel.append(element("p", "note", "Point at, tap or move by arrow keys to a masked position to see its guesses."));
      return;
    }
    if (!fed) {
      panel.append(element("p", "", `Position ${position + 1}: masked, and nothing is fed back (a plain mask).`));
      return;
    }
    panel.append(element("p", "", `Position ${position + 1}: lambda ${fed[1].toFixed(3)}, mixed from these guesses`));
    const list = element("ol");
    for (const [token, share] of fed[2]) {
      const row = element("li");
      const bar = element("span", "bar");
      bar.style.width = `${Math.max(1, 100 * share)}%`;
      const cell = element("span");
      cell.append(bar);
      row.append(element("code", "", visible(token)), cell, element("span", "", `${(100 * share).toFixed(1)}%`));
      list.append(row);
    }
    panel.append(list);
  };

  const pick = (position) => {
    picked = position;
    for (const node of page.querySelectorAll(".mask")) {
      node.classList.toggle("picked", Number(node.dataset.position) === position);
    }
    explain(position);
  };

  const draw = () => {
    const trace = traces[Number(select.value)];
    const index = Number(slider.value);
    const step = trace.steps[index];
    const tokens = stateAt(trace, index);
    const changed = new Set(step.set.map(([position]) => position));
    const lam = new Map(step.fed.map((row) => [row[0], row[1]]));
    page.replaceChildren();
    tokens.forEach((token, position) => {
      if (token === null) {
        const cell = element("span", "mask", "\u00B7");
        cell.dataset.position = String(position);
        if (lam.has(position)) cell.style.backgroundColor = `rgba(var(--lam), ${(0.08 + 0.8 * lam.get(position)).toFixed(3)})`;
        page.append(cell);
        return;
      }
      if (!changed.has(position)) {
        page.append(token);
        return;
      }
      // White space that was just set needs a sign to be seen; a line break still breaks the line.
      const blank = /^\s*$/.test(token);
      page.append(element("span", "set", blank ? visible(token) : token), blank && token.includes("\n") ? "\n" : "");
    });
    const masked = tokens.filter((token) => token === null).length;
    const text = `step ${step.step} of ${trace.of}, t = ${step.t}, ${changed.size} changed, ${masked} masked`;
    status.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    const first = step.fed.length ? step.fed[0][0] : null;
    pick(picked !== null && tokens[picked] === null ? picked : first);
  };

  const choose = () => {
    const last = traces[Number(select.value)].steps.length - 1;
    const share = Number(slider.max) > 0 ? Number(slider.value) / Number(slider.max) : 0.4;
    slider.max = String(last);
    slider.value = String(Math.round(share * last));
    draw();
  };

  const target = (event) => event.target.closest && event.target.closest(".mask");
  for (const kind of ["pointerover", "click"]) {
    page.addEventListener(kind, (event) => {
      const cell = target(event);
      if (cell) pick(Number(cell.dataset.position));
    });
  }
  page.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const positions = [...page.querySelectorAll(".mask")].map((node) => Number(node.dataset.position));
    if (!positions.length) return;
    const at = positions.indexOf(picked);
    pick(positions[at < 0 ? (move > 0 ? 0 : positions.length - 1) : (at + move + positions.length) % positions.length]);
  });
  slider.addEventListener("input", draw);
  select.addEventListener("change", choose);
  view.hidden = false;
  choose();
})();

// The list of problems where arms differ: narrowed by a choice and by words; without a script all of it is there.
(() => {
  "use strict";
  for (const list of document.querySelectorAll(".answers")) {
    const controls = list.querySelector(".controls");
    const [select, words, status] = ["select", "input", "output"].map((name) => controls.querySelector(name));
    const problems = [...list.querySelectorAll(".problem")].map((node) => [node, node.textContent.toLowerCase()]);
    const narrow = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [node, text] of problems) {
        node.hidden = !((!select.value || node.dataset.group === select.value) && wanted.every((word) => text.includes(word)));
        if (!node.hidden) shown += 1;
      }
      status.textContent = `${shown} of ${problems.length} shown`;
    };
    select.addEventListener("change", narrow);
    words.addEventListener("input", narrow);
    controls.hidden = false;
    narrow();
  }
})();

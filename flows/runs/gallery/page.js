"use strict";
// Everything that comes from a run reaches the page as text, never as HTML.
const gallery = (() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const at = (id) => document.getElementById(id);
  const state = { outcomes: new Set(facts.names), least: 0, words: "", order: "row", page: 0 };
  const LOADED_AT_MOST = 120;

  // The cards, a chunk at a time: inside the page, or in files beside it.
  const loaded = new Map();
  const waiting = new Map();
  const policy = window.trustedTypes
    ? window.trustedTypes.createPolicy("gallery", { createScriptURL: (url) => url })
    : { createScriptURL: (url) => url };

  function chunk(number) {
    if (facts.chunks.length) return Promise.resolve(facts.chunks[number]);
    if (loaded.has(number)) return Promise.resolve(loaded.get(number));
    if (!waiting.has(number)) waiting.set(number, load(number));
    return waiting.get(number).promise;
  }

  function load(number) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      const script = document.createElement("script");
      script.src = policy.createScriptURL(`data-${Number(number)}.js`);
      script.onload = () => script.remove();
      script.onerror = () => {
        waiting.delete(number);
        reject(new Error(`data-${number}.js is missing beside this page`));
      };
      document.head.append(script);
    });
    return entry;
  }

  function take(number, content) {
    loaded.set(number, content);
    if (loaded.size > LOADED_AT_MOST) loaded.delete(loaded.keys().next().value);
    waiting.get(number)?.resolve(content);
    waiting.delete(number);
  }

  async function cardAt(index) {
    const { cards, passages } = await chunk(Math.floor(index / facts.chunk));
    const card = cards[index % facts.chunk];
    const sources = (card.sources ?? []).map(([passage, , used]) => {
      const [title, source, text] = passages[passage];
      return { title, source, text, used };
    });
    return { ...card, sources };
  }

  // Which rows, in which order.
  let turn = 0;
  let selection = [];

  async function select() {
    const mine = ++turn;
    let found = [];
    for (let index = 0; index < facts.outcomes.length; index++) {
      const kept = state.outcomes.has(facts.names[facts.outcomes[index]]);
      if (kept && (state.least === 0 || facts.scores[index] >= state.least)) found.push(index);
    }
    if (state.words) found = await matching(found, () => mine === turn);
    if (mine !== turn) return;
    selection = inOrder(found);
    state.page = 0;
    await show(mine);
  }

  async function matching(indices, current) {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (const [place, index] of indices.entries()) {
      if (place % 2000 === 1999) {
        at("found").textContent = `Searching: ${count(place)} of ${count(indices.length)} rows`;
        await new Promise((resume) => setTimeout(resume));
      }
      if (!current()) break;
      const text = searched(await cardAt(index));
      if (words.every((word) => text.includes(word))) found.push(index);
    }
    return found;
  }

  function searched(card) {
    const sources = card.sources.flatMap(({ title, source, text }) => [title, source, text]);
    const { keywords, prompt, text, style, reason, name, job_id } = card;
    const fields = [keywords, prompt, text, style, reason, name, job_id, ...Object.values(card.meta ?? {})];
    return [...fields, ...sources].filter(Boolean).join("\n").toLowerCase();
  }

  function inOrder(indices) {
    if (state.order === "row") return indices;
    const sign = state.order === "best" ? -1 : 1;
    const unscored = (index) => (facts.scores[index] === null ? 1 : 0);
    const scores = facts.scores;
    return indices.sort((a, b) => unscored(a) - unscored(b) || sign * (scores[a] - scores[b]) || a - b);
  }

  // The grid.
  async function show(mine = ++turn) {
    const first = state.page * facts.page;
    const indices = selection.slice(first, first + facts.page);
    at("grid").setAttribute("aria-busy", "true");
    const cards = await Promise.all(indices.map(cardAt));
    if (mine !== turn) return;
    at("grid").replaceChildren(...(cards.length ? cards.map((c, i) => tile(c, first + i)) : [empty()]));
    at("grid").removeAttribute("aria-busy");
    const all = facts.outcomes.length;
    at("found").textContent = selection.length === all ? "" : `${count(selection.length)} of ${count(all)} rows`;
    const pages = Math.ceil(selection.length / facts.page);
    at("pages").hidden = pages < 2;
    at("place").textContent = `${count(first + 1)} to ${count(first + cards.length)} of ${count(selection.length)}`;
    at("earlier").disabled = state.page === 0;
    at("later").disabled = state.page >= pages - 1;
  }

  function tile(card, place) {
    const open = make("button", { type: "button", class: "open" }, card.keywords || `row ${card.row}`);
    open.addEventListener("click", () => openReceipt(place));
    return make("li", { class: `card ${card.outcome}` },
      image(card, "lazy"),
      make("div", { class: "says" },
        make("div", { class: "line" }, badge(card), make("span", {}, `row ${card.row}`)),
        open,
        card.score !== undefined && scoreBar(card.score, card.threshold),
        card.candidates?.length > 1 && race(card),
        card.prompt && card.prompt !== card.keywords && make("p", { class: "clamp", title: card.prompt }, card.prompt),
        make("div", { class: "foot" },
          card.notices && make("span", { class: "source", title: card.notices.join("\n") }, "notices"),
          ...card.sources.filter(({ used }) => used)
            .map((source) => make("span", { class: "source", title: source.text }, named(source))),
          card.seed !== undefined && make("span", { class: "seed" }, `seed ${card.seed}`))));
  }

  function image(card, loading) {
    if (!card.image) {
      const reason = make("span", {}, card.reason || "no image");
      return make("div", { class: "image" }, make("div", { class: "nothing", title: card.reason ?? "" }, reason));
    }
    const { width, height } = card;
    const tiny = Math.max(width, height) <= 192 ? "tiny" : "";
    const alt = card.prompt || card.keywords;
    return make("div", { class: "image" }, make("img", { src: card.image, alt, width, height, loading, decoding: "async", class: tiny }));
  }

  function scoreBar(score, threshold) {
    return make("div", { class: "score" }, bar(score, threshold), make("span", {}, score.toFixed(2)));
  }

  function bar(score, threshold) {
    const gated = threshold !== undefined;
    const label = gated ? `score ${score.toFixed(2)}, gate ${threshold.toFixed(2)}` : `score ${score.toFixed(2)}`;
    const element = make("div", { class: gated ? "bar" : "bar ungated", role: "img", "aria-label": label, title: label });
    element.style.setProperty("--score", score);
    element.style.setProperty("--gate", threshold ?? 0);
    return element;
  }

  function race(card) {
    const label = `${card.candidates.length} candidates: ` + card.candidates.map(told(card)).join(", ");
    const columns = card.candidates.map(([index, , score, , bad]) => {
      const column = make("i", { class: index === card.winner ? "won" : bad ? "bad" : "" });
      column.style.setProperty("--score", score ?? 0);
      return column;
    });
    return make("div", { class: "race", role: "img", "aria-label": label, title: label }, ...columns);
  }

  const told = (card) => ([index, , score, , bad]) =>
    (score === null ? "dropped" : bad ? "invalid" : score.toFixed(2)) + (index === card.winner ? " (winner)" : "");

  function empty() {
    const reset = make("button", { type: "button" }, "Show all rows");
    reset.addEventListener("click", clear);
    return make("li", { class: "none pages" }, "No row is like that.", reset);
  }

  // The receipt of one row.
  async function openReceipt(place) {
    const card = await cardAt(selection[place]);
    const dialog = at("receipt");
    const close = make("button", { type: "button", autofocus: "" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const nav = make("nav", { "aria-label": "Rows" }, step("Previous", place - 1), step("Next", place + 1), close);
    dialog.replaceChildren(make("div", { class: `receipt ${card.outcome}` }, image(card, "eager"), detail(card, nav)));
    dialog.dataset.place = place;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function step(label, place) {
    const button = make("button", { type: "button" }, label);
    button.disabled = place < 0 || place >= selection.length;
    button.addEventListener("click", () => openReceipt(place));
    return button;
  }

  function detail(card, nav) {
    return make("div", { class: "detail" },
      nav,
      make("div", {}, badge(card), make("h2", { id: "receipt-title" }, card.keywords || `row ${card.row}`)),
      card.reason && make("p", {}, card.reason),
      part("Notices", ...(card.notices ?? []).map((notice) => make("p", {}, notice))),
      card.score !== undefined && scoreBar(card.score, card.threshold),
      part("Prompt", card.prompt && make("p", {}, card.prompt)),
      part("Text", card.text && card.text !== card.prompt && make("p", {}, card.text)),
      part("Sources", ...card.sources.filter(({ used }) => used).map(quoted)),
      part("Retrieved, not used", ...card.sources.filter(({ used }) => !used).map(quoted)),
      part("Candidates", card.candidates && candidates(card)),
      part("Receipt", receipt(card)));
  }

  function quoted({ title, source, text }) {
    return make("blockquote", {}, text, make("cite", {}, [title, source].filter(Boolean).join(" · ")));
  }

  function part(title, ...content) {
    const kept = content.filter(Boolean);
    return kept.length ? make("section", {}, make("h3", {}, title), ...kept) : null;
  }

  function candidates(card) {
    const judges = card.judges ?? [];
    const head = ["", "Score", "", ...judges, "Raw", "Seed"].map((name) => make("th", { scope: "col" }, name));
    const rows = card.candidates.map(([index, seed, score, raw, bad, chances]) =>
      make("tr", { class: index === card.winner ? "won" : "" },
        make("td", {}, index === card.winner ? "winner" : `${index + 1}`),
        make("td", {}, score === null ? "" : bar(score, card.threshold)),
        make("td", {}, bad || score.toFixed(3)),
        ...judges.map((_, place) => make("td", {}, chances?.[place]?.toFixed(3) ?? "")),
        make("td", {}, raw?.toFixed(3) ?? ""),
        make("td", {}, `${seed}`)));
    return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  }

  function receipt(card) {
    const record = make("a", { href: `../records/${encodeURIComponent(card.job_id)}.json` }, card.job_id);
    const meta = Object.entries(card.meta ?? {}).map(([name, value]) => [`meta.${name}`, value]);
    const lines = [
      ["Row", card.name ? `${card.row} (${card.name})` : card.row], ["Style", card.style],
      ["Negative", card.negative], ...meta, ["Seed", card.seed], ["Size", card.image && `${card.width} × ${card.height}`],
      ["Steps", card.steps], ["Guidance", card.guidance], ["Gate", card.threshold],
      ["Model time", card.device_seconds && `${card.device_seconds.toFixed(2)} s`], ["Made", card.created_at], ["Record", record],
    ];
    const said = lines.filter(([, value]) => value !== undefined && value !== "");
    return make("dl", {}, ...said.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }

  // Small tools.
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((c) => c || c === 0).map((c) => (c instanceof Node ? c : `${c}`)));
    return element;
  }

  const badge = (card) => make("span", { class: "badge" }, card.outcome.replace("_", " "));
  const named = (source) => source.title || source.source || "passage";
  const count = (number) => number.toLocaleString("en");

  function clear() {
    at("tools").reset();
    state.outcomes = new Set(facts.names);
    Object.assign(state, { least: 0, words: "", order: "row" });
    drawTools();
    select().catch(tell);
  }

  function drawTools() {
    at("least-value").textContent = state.least.toFixed(2);
    for (const chip of document.querySelectorAll(".chip")) {
      chip.setAttribute("aria-pressed", state.outcomes.has(chip.dataset.outcome));
    }
  }

  function tell(error) {
    at("found").textContent = error.message;
  }

  function change(values) {
    Object.assign(state, values);
    drawTools();
    select().catch(tell);
  }

  function turnPage(by) {
    state.page += by;
    show().then(() => at("tools").scrollIntoView(), tell);
  }

  function toggled(outcome) {
    const all = facts.names.every((name) => state.outcomes.has(name));
    if (all) return new Set([outcome]);
    const outcomes = new Set(state.outcomes);
    if (!outcomes.delete(outcome)) outcomes.add(outcome);
    return outcomes.size ? outcomes : new Set(facts.names);
  }

  let typing;
  at("words").addEventListener("input", ({ target }) => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ words: target.value.trim() }), 150);
  });
  at("least").addEventListener("input", ({ target }) => change({ least: Number(target.value) }));
  at("order").addEventListener("change", ({ target }) => change({ order: target.value }));
  at("tools").addEventListener("submit", (event) => event.preventDefault());
  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => change({ outcomes: toggled(chip.dataset.outcome) }));
  }
  at("earlier").addEventListener("click", () => turnPage(-1));
  at("later").addEventListener("click", () => turnPage(1));
  at("receipt").addEventListener("click", ({ target, currentTarget }) => {
    if (target === currentTarget) currentTarget.close();
  });
  at("receipt").addEventListener("keydown", ({ key, currentTarget }) => {
    const place = Number(currentTarget.dataset.place) + { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (place >= 0 && place < selection.length) openReceipt(place);
  });

  // scripts beside the page call `gallery.take`, which exists only after this function has ended
  queueMicrotask(() => change({}));
  return { take };
})();

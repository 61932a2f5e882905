"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map((data.samples || []).map((sample) => [sample.id, sample]));
  const titles = new Map(data.choices.reason.map(([code, title]) => [code, title]));
  const copies = new Map(data.galleries.filter((g) => g.section === "duplicates").map((g) => [g.items[0].id, g.items.slice(1)]));
  const at = (id) => document.getElementById(id);
  const FIELDS = ["q", "stage", "outcome", "reason", "source", "language", "min", "max"];
  const PAGE = 60;

  /* Everything that is shown is made here: text is only ever text. */
  function make(tag, about = {}, ...inside) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(about)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "class") node.className = value;
      else if (name === "text") node.textContent = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...inside.filter((one) => one !== null && one !== undefined));
    return node;
  }
  const number = (value) => value === null || value === undefined ? "–"
    : Number.isInteger(value) ? value.toLocaleString("en") : value.toLocaleString("en", { maximumSignificantDigits: 4 });
  const score = (value) => { const told = value.toFixed(3); return told === "-0.000" ? "0.000" : told.replace("-", "−"); };
  const language = (tag) => { if (tag === "und") return "language not stated"; try { return new Intl.DisplayNames(["en"], { type: "language" }).of(tag) || tag; } catch { return tag; } };
  const fateOf = (one) => one.outcome === "kept" ? "Kept" : titles.get(one.code) || one.code || one.outcome;

  /* A value on a short line, with a tick at each bound. */
  function scale(value, bounds, unit) {
    if (value === null || value === undefined) return null;
    const ticks = bounds.filter((bound) => bound !== null && bound !== undefined);
    const [low, high] = unit === "score" && data.choices.score[1] !== null
      ? [Math.min(0, data.choices.score[0] - 0.04), Math.max(data.choices.score[1], ...ticks) * 1.04]
      : [0, Math.max(value, ...ticks) * 1.12 || 1];
    const place = (one) => `${Math.min(100, Math.max(0, (one - low) / (high - low) * 100))}%`;
    const line = make("span", { class: "scale", "aria-hidden": "true" });
    const fill = make("i");
    fill.style.width = place(value);
    line.append(fill);
    for (const tick of ticks) { const mark = make("b"); mark.style.left = place(tick); line.append(mark); }
    return line;
  }
  function measured(one, unit) {
    if (one.value === undefined) return [];
    const bound = one.bound === undefined ? "" : `, bound ${number(one.bound)}`;
    const words = unit === "score" ? `score ${score(one.value)}${one.bound === undefined ? "" : `, bound ${score(one.bound)}`}` : `${number(one.value)} ${unit || ""}${bound}`;
    return [scale(one.value, [one.bound], unit), make("span", { class: "measure", text: words.trim() })];
  }
  const scored = (caption) => caption.score === undefined ? []
    : [scale(caption.score, data.bounds[caption.language] || [], "score"), make("span", { class: "measure", text: `score ${score(caption.score)}` })];

  const captionsOf = (sample) => sample.captions || [];
  const about = (sample, item) => captionsOf(sample).find((caption) => caption.caption_id === (item && item.caption)) || captionsOf(sample)[0];
  const altOf = (sample) => captionsOf(sample).length ? `Picture: ${captionsOf(sample)[0].text}` : `Picture ${sample.key}`;
  function picture(sample) {
    const source = data.served ? (sample.thumb ? `/thumb/${sample.id}` : null) : data.thumbs[sample.id];
    if (source) return make("img", { src: source, alt: altOf(sample), loading: "lazy", decoding: "async" });
    const why = sample.width === undefined ? (sample.stage === data.stages[0] ? "There is no picture" : "Does not decode, so there is nothing to show")
      : sample.error ? "Does not decode whole" : "No thumbnail on this page";
    return make("span", { class: "none", text: why });
  }

  function card(sample, item) {
    const caption = about(sample, item);
    const ofCaption = item && item.caption && caption;
    const told = ofCaption ? caption : sample;
    const button = make("button", { type: "button", class: "card", "data-id": sample.id, tabindex: "-1", onclick: () => open(sample.id, item) },
      make("span", { class: "pic" }, picture(sample)),
      make("span", { class: caption && caption.text.trim() ? "text" : "text is-none", lang: caption && caption.language !== "und" ? caption.language : null, dir: "auto", text: caption ? caption.text.trim() || "an empty caption" : "no caption" }));
    const why = make("span");
    if (item && item.distance !== undefined) why.append(make("span", { class: "fate rejected", text: item.distance === 0 ? "went: the same hash" : `went: ${item.distance} bit${item.distance === 1 ? "" : "s"} away` }),
      ...measured(sample, "bits"));
    else if (item && item.stayed) why.append(make("span", { class: "fate kept", text: "stayed" }), make("span", { class: "measure", text: sample.outcome === "kept" ? `${number(sample.width)} × ${number(sample.height)} px` : `later ${sample.outcome}: ${fateOf(sample).toLowerCase()}` }));
    else {
      const line = make("span", { class: told.outcome });
      line.append(make("span", { class: `fate ${told.outcome}`, text: fateOf(told) }), ...(told.outcome !== "kept" ? measured(told, ofCaption ? unitOf(caption) : sample.unit) : ofCaption ? scored(caption) : sample.score === undefined ? [] : scored({ score: sample.score, language: caption && caption.language })));
      why.append(line);
    }
    if (item && item.note) why.append(make("span", { class: "measure", text: item.note }));
    button.append(why, make("span", { class: "key", text: sample.key }));
    return make("li", {}, button);
  }
  const unitOf = (caption) => caption.code === "caption_too_long" ? "characters" : "score";

  /* One card of a grid takes the focus; arrows move it. */
  function fill(grid, cards) {
    grid.append(...cards);
    const first = grid.querySelector(".card");
    if (first && !grid.querySelector('.card[tabindex="0"]')) first.tabIndex = 0;
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing) { event.preventDefault(); closeStory(); at("q").focus(); return; }
    if (event.key === "Escape" && !at("story").open && (typing || filtering())) { clear(); return; }
    if (at("story").open) { if (!typing) step({ ArrowLeft: -1, ArrowRight: 1 }[event.key]); return; }
    const here = event.target.closest(".card");
    if (!here || !event.key.startsWith("Arrow") && event.key !== "Home" && event.key !== "End") return;
    const cards = [...here.closest(".grid").querySelectorAll(".card")];
    const wide = Math.max(1, cards.filter((one) => one.offsetTop === cards[0].offsetTop).length);
    const place = cards.indexOf(here);
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? cards.length - 1 : place + by;
    event.preventDefault();
    if (cards[to]) { focusCard(cards, cards[to]); return; }
    const grids = [...document.querySelectorAll(".grid")].filter((grid) => grid.offsetParent && grid.querySelector(".card"));
    const next = grids[grids.indexOf(here.closest(".grid")) + (by > 0 ? 1 : -1)];
    if (next && Math.abs(by) >= 1) { const others = [...next.querySelectorAll(".card")]; focusCard(others, by > 0 ? others[0] : others[others.length - 1]); }
  });
  function focusCard(cards, to) {
    for (const one of cards) one.tabIndex = one === to ? 0 : -1;
    to.focus();
    to.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /* Galleries, filled when they come near. */
  const known = (item) => byId.has(item.id);
  function gallery(told) {
    const cluster = told.section === "duplicates";
    const items = told.items.filter(known);
    const shown = cluster ? items.length - 1 : items.length;
    const counts = told.total > shown ? `${number(shown)} of ${number(told.total)}` : number(told.total);
    const head = make("header", {}, make("h3", { text: told.title }));
    const [code, ...rest] = told.note.split(", ");
    if (!cluster) head.append(make("p", { class: "quiet" }, make("span", { text: `${counts}` }), told.note ? " · " : "", rest.length && told.asks.reason ? make("code", { text: code }) : make("span", { text: told.note }), rest.length && told.asks.reason ? make("span", { text: `, ${rest.join(", ")}` }) : ""));
    if (Object.keys(told.asks).length && told.total > shown) head.append(make("button", { type: "button", class: "link", text: "Filter for these", onclick: () => ask(told.asks) }));
    const grid = make("ul", { class: "grid", "aria-label": told.title });
    const node = make("div", { class: cluster ? "gallery cluster" : "gallery" }, head, grid);
    if (items.length < 6) node.style.flexBasis = `${items.length * 12.5 - 1 + (cluster ? 0.6 : 0)}rem`;
    // Room for what will be there, so that nothing below it moves when it comes.
    const wide = Math.max(1, Math.floor((Math.min(at("main").clientWidth, items.length * 200) + 16) / 200));
    grid.style.minHeight = `${(cluster ? 1 : Math.ceil(items.length / wide)) * 300}px`;
    near(node, () => { grid.style.minHeight = ""; return fill(grid, items.map((item, place) => card(byId.get(item.id), cluster && place === 0 ? { ...item, stayed: true } : item))); });
    return node;
  }
  function near(node, then) {
    const watch = new IntersectionObserver((seen) => {
      if (seen.some((one) => one.isIntersecting)) { watch.disconnect(); then(); }
    }, { rootMargin: "900px" });
    watch.observe(node);
  }

  /* Search and filters: kept in the address, so that what is seen can be sent to somebody. */
  const form = at("filters");
  const state = () => Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value.trim()]).filter(([, value]) => value));
  const filtering = () => Object.keys(state()).length > 0;
  function ask(wanted) {
    for (const name of FIELDS) set(form.elements[name], wanted[name] || "");
    changed();
    at("results-title").focus({ preventScroll: true });
    at("results").scrollIntoView({ block: "start" });
  }
  function set(field, value) {
    if (field.tagName === "SELECT" && value && ![...field.options].some((option) => option.value === value)) field.append(new Option(value, value));
    field.value = value;
  }
  function clear() { for (const name of FIELDS) form.elements[name].value = ""; changed(); }
  /* Each is to be found, in whatever order. */
  const wordsOf = (wanted) => (wanted.q || "").toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (wanted) => {
    const words = wordsOf(wanted);
    const low = wanted.min === undefined ? -Infinity : Number(wanted.min);
    const high = wanted.max === undefined ? Infinity : Number(wanted.max);
    return (sample) => {
      const captions = captionsOf(sample);
      if (wanted.stage && sample.stage !== wanted.stage) return false;
      if (wanted.outcome && sample.outcome !== wanted.outcome) return false;
      if (wanted.source && sample.came_from !== wanted.source) return false;
      if (wanted.language && !captions.some((caption) => caption.language === wanted.language)) return false;
      if (wanted.reason && sample.code !== wanted.reason && !captions.some((caption) => caption.code === wanted.reason)
        && !(sample.asked || []).some((one) => `caption_${one.failure}` === wanted.reason)) return false;
      if ((wanted.min !== undefined || wanted.max !== undefined) && !(sample.score >= low && sample.score <= high)) return false;
      const said = words.length ? [sample.id, sample.key, sample.related || "", ...captions.map((caption) => caption.text)].map((text) => text.toLowerCase()) : [];
      return words.every((word) => said.some((text) => text.includes(word)));
    };
  };
  async function find(wanted, from, after) {
    if (data.served) {
      const answer = await fetch(`/api/samples?${new URLSearchParams({ ...wanted, after })}`);
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      return answer.json();
    }
    const found = data.samples.filter(matches(wanted));
    return { total: found.length, samples: found.slice(from, from + PAGE) };
  }
  let turn = 0;
  async function results(from) {
    const mine = ++turn;
    const wanted = state();
    const grid = at("results-grid");
    let found;
    const last = grid.querySelector("li:last-child .card");
    try { found = await find(wanted, from, from && last ? last.dataset.id : ""); } catch (error) { if (mine === turn) at("results-note").textContent = `Nothing came: ${error.message}`; return; }
    if (mine !== turn) return;
    for (const sample of found.samples) byId.set(sample.id, sample);
    if (!from) grid.replaceChildren();
    const words = wordsOf(wanted);
    fill(grid, found.samples.map((sample) => card(sample, reasoned(sample, wanted, words))));
    const seen = grid.children.length;
    at("results-title").textContent = found.total === 1 ? "1 sample" : `${number(found.total)} samples`;
    at("results-note").textContent = data.served || data.samples.length >= data.total ? "" : `Of the ${number(data.samples.length)} that this page shows of ${number(data.total)}. All of them: vlmdata report --serve`;
    at("results-more").hidden = seen >= found.total;
    at("announce").textContent = `${found.total} samples match`;
  }
  /* The caption that a sample was found by: it has a word that was sought, and none has more. */
  function reasoned(sample, wanted, words) {
    const has = (caption) => words.filter((word) => caption.text.toLowerCase().includes(word)).length;
    const most = Math.max(0, ...captionsOf(sample).map(has));
    const hit = captionsOf(sample).find((caption) => (most && has(caption) === most) || (wanted.language && caption.language === wanted.language)
      || (wanted.reason && sample.code !== wanted.reason && caption.code === wanted.reason));
    return hit && sample.outcome === "kept" ? { caption: hit.caption_id } : undefined;
  }
  function show() {
    const on = filtering();
    at("results").hidden = !on;
    at("report").hidden = on;
    at("clear").hidden = !on;
    for (const name of FIELDS) form.elements[name].classList.toggle("set", Boolean(form.elements[name].value));
    if (on) results(0); else { turn++; at("announce").textContent = ""; }
  }
  function changed() {
    const told = new URLSearchParams(state()).toString();
    history.replaceState(null, "", told ? `#${told}` : location.pathname + location.search);
    show();
  }
  function fromAddress() {
    const told = location.hash.slice(1);
    if (told && !told.includes("=")) {
      if (filtering()) { clear(); history.replaceState(null, "", `#${told}`); }
      const there = at(told);
      if (there) jump(there, 3);
      return;
    }
    const wanted = new URLSearchParams(told);
    for (const name of FIELDS) set(form.elements[name], wanted.get(name) || "");
    show();
    if (wanted.get("sample")) open(wanted.get("sample"));
  }
  /* Galleries that fill on the way move what is below them: look again. */
  function jump(there, times) {
    there.scrollIntoView({ behavior: "instant" });
    if (times) setTimeout(() => jump(there, times - 1), 120);
  }
  let waiting;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 120); });
  form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
  at("clear").addEventListener("click", () => { clear(); at("q").focus(); });
  at("results-more").addEventListener("click", () => results(at("results-grid").children.length));
  at("more-filters").addEventListener("click", () => {
    const on = at("choices").classList.toggle("open");
    at("more-filters").setAttribute("aria-expanded", String(on));
  });

  /* A sample's story. */
  let opener = null;
  async function sampleOf(id) {
    if (byId.has(id) || !data.served) return byId.get(id);
    const answer = await fetch(`/api/sample/${encodeURIComponent(id)}`);
    if (answer.ok) byId.set(id, await answer.json());
    return byId.get(id);
  }
  async function open(id, item) {
    const sample = await sampleOf(id);
    if (!sample) return;
    const dialog = at("story");
    if (!dialog.open) opener = document.activeElement;
    dialog.replaceChildren(...story(sample, item));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.querySelector(".close").focus();
  }
  function closeStory() { if (at("story").open) at("story").close(); }
  at("story").addEventListener("close", () => { if (opener && opener.isConnected) opener.focus(); });
  at("story").addEventListener("click", (event) => { if (event.target === at("story")) closeStory(); });
  function step(by) {
    if (!by || !opener || !opener.closest(".grid")) return;
    const cards = [...opener.closest(".grid").querySelectorAll(".card")];
    const next = cards[cards.indexOf(opener) + by];
    if (!next) return;
    for (const one of cards) one.tabIndex = one === next ? 0 : -1;
    opener = next;
    next.click();
  }
  function story(sample, item) {
    const head = make("div", { class: "story-head" },
      make("div", {}, make("h2", { id: "story-title", text: sample.key }), make("p", { class: "quiet" }, make("code", { text: sample.id }))),
      make("div", {}, make("button", { type: "button", "aria-label": "The one before", text: "←", onclick: () => step(-1) }), make("button", { type: "button", "aria-label": "The next one", text: "→", onclick: () => step(1) }),
        make("button", { type: "button", class: "close", text: "Close", onclick: closeStory })));
    const left = make("div", {}, make("div", { class: "pic" }, picture(sample)), make("h3", { text: "Picture" }), facts(sample));
    const right = make("div", {}, make("h3", { text: "Story" }), path(sample), ...kin(sample), ...said(sample, item), ...askedOf(sample),
      make("h3", { text: "In the terminal" }), make("p", {}, make("code", { text: `${data.explain[0]} ${sample.id} ${data.explain[1]}` })));
    return [head, make("div", { class: "story" }, make("div", { class: "story-body" }, left, right))];
  }
  function facts(sample) {
    const rows = [["size", sample.width && `${number(sample.width)} × ${number(sample.height)} px`], ["format", sample.format], ["frames", sample.frames > 1 ? `${sample.frames}, the first is used` : null],
      ["EXIF", sample.orientation > 1 ? `orientation ${sample.orientation}, turned upright` : null], ["bytes", sample.bytes && number(sample.bytes)], ["source", sample.came_from], ["address", sample.url], ["licence", sample.license],
      ["shard", sample.shard], ["pHash", sample.phash], ["sha256", sample.sha256]];
    return make("dl", { class: "facts" }, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
  }
  function path(sample) {
    const end = data.stages.indexOf(sample.stage);
    return make("ol", { class: "path" }, ...data.stages.map((stage, place) => {
      if (place > end) return make("li", { class: "not" }, make("span", { class: "quiet", text: `${stage}: not reached` }));
      const here = place === end && sample.outcome !== "kept";
      const node = make("li", { class: here ? sample.outcome : "kept" }, make("span", { text: `${stage}: ` }), make("b", { text: here ? sample.outcome : "kept" }));
      if (here) {
        node.append(make("span", { text: ` · ${fateOf(sample)} ` }), make("code", { text: sample.code }), ...measured(sample, sample.unit));
        if (sample.detail) node.append(make("span", { class: "measure", text: sample.detail }));
      }
      return node;
    }));
  }
  /* The picture that stayed for this one, or those that went for it. */
  function kin(sample) {
    const others = sample.related ? [{ id: sample.related }] : copies.get(sample.id) || [];
    if (!others.length) return [];
    const list = make("ul", { class: "others" }, ...others.map((other) => {
      const there = byId.get(other.id);
      const words = there ? there.key : other.id;
      return make("li", {}, make("button", { type: "button", "aria-label": `Open ${words}`, onclick: () => open(other.id), disabled: !there && !data.served }, there ? picture(there) : null, make("span", { text: other.distance === undefined ? words : `${other.distance} bits` })));
    }));
    return [make("h3", { text: sample.related ? "It is a near-duplicate of" : "Went for it" }), list];
  }
  function said(sample, item) {
    const captions = captionsOf(sample);
    if (!captions.length) return [make("h3", { text: "Captions" }), make("p", { class: "quiet", text: "None." })];
    const rows = captions.map((caption) => {
      const node = make("li", { class: item && item.caption === caption.caption_id ? "about" : null },
        make("p", { lang: caption.language !== "und" ? caption.language : null, dir: "auto", text: caption.text || "(empty)" }),
        make("span", { class: caption.outcome }, make("span", { class: `fate ${caption.outcome}`, text: fateOf(caption) }), ...(caption.score !== undefined ? scored(caption) : measured(caption, unitOf(caption)))));
      const from = [language(caption.language), caption.origin, caption.model && `judged by ${caption.model}`].filter(Boolean);
      node.append(make("span", { class: "measure", text: from.join(" · ") }));
      if (caption.detail) node.append(make("span", { class: "measure", text: caption.detail }));
      return node;
    });
    return [make("h3", { text: captions.length === 1 ? "Caption" : "Captions" }), make("ul", { class: "said-of" }, ...rows)];
  }
  function askedOf(sample) {
    if (!sample.asked) return [];
    return [make("h3", { text: "What the captioner answered" }), ...sample.asked.map((one) => make("p", { text: [one.failure, one.http_status && `HTTP ${one.http_status}`, `${one.requests} requests`, one.message].filter(Boolean).join(" · ") }))];
  }

  /* Now fill the page. */
  for (const name of ["stage", "outcome", "reason", "source", "language"]) {
    const label = (value, title) => name === "language" ? language(value) : title;
    form.elements[name].append(new Option("All", ""), ...data.choices[name].map(([value, title, count]) => new Option(`${label(value, title)} (${number(count)})`, value)));
  }
  for (const section of document.querySelectorAll("[data-galleries]")) {
    const own = data.galleries.filter((one) => one.section === section.id && one.items.some(known));
    section.hidden = !own.length;
    section.append(make("div", { class: "galleries" }, ...own.map(gallery)));
  }
  for (const section of document.querySelectorAll("#report > section:not([hidden])")) {
    at("sections").append(make("li", {}, make("a", { href: `#${section.id}`, text: section.dataset.name })));
  }
  at("scope").textContent = data.served ? `${number(data.total)} samples, all of which can be searched.`
    : `This page holds ${number(data.samples.length)} of ${number(data.total)} samples, drawn by their ids; vlmdata report --serve shows all of them.`;
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
})();

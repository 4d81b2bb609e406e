"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const $ = id => document.getElementById(id);
  const queries = data.query.names.length;
  const chunk = 12;
  const words = ["wrong", "right", "does not count", ""];
  const marks = ["\u2717", "\u2713", "", ""];

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const percent = value => (100 * value).toFixed(1);
  const known = (values, i) => values && values[i] >= 0;
  const called = (kind, code) => data.words[kind][code];
  const tags = (side, i) => [
    known(side.cameras, i) ? called("tags", side.cameras[i]) : "",
    known(side.tracklets, i) ? "t" + side.tracklets[i] : "",
  ].filter(Boolean).join(" \u00b7 ");
  const picture = (place, name) => {
    if (!pictures || !pictures[place]) return make("div", "blank", name);
    const image = make("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = name;
    image.src = "data:image/webp;base64," + pictures[place];
    return image;
  };

  const fill = (select, entries) => {
    for (const [value, text] of entries) select.append(new Option(text, value));
  };
  fill($("before"), data.chains.map((name, i) => [i, name]));
  fill($("after"), data.chains.map((name, i) => [i, name]));
  $("after").value = data.best;
  fill($("order"), data.scored
    ? [["worst", "worst first"], ["best", "best first"], ["gain", "largest gain"], ["loss", "largest loss"], ["row", "as in the data"]]
    : [["row", "as in the data"]]);
  const cameras = [...new Set(data.query.cameras || [])].filter(c => c >= 0).sort((a, b) => a - b);
  fill($("camera"), [["", "all"], ...cameras.map(c => [c, "camera " + called("cameras", c)])]);
  fill($("show"), data.scored
    ? [["", "all queries"], ["missed", "first image wrong"], ["up", "gained"], ["down", "lost"]]
    : [["", "all queries"]]);

  let rows = [];
  let drawn = 0;
  const state = () => ({
    before: +$("before").value, after: +$("after").value, order: $("order").value,
    camera: $("camera").value, show: $("show").value, find: $("find").value.trim().toLowerCase(),
  });
  const precision = (chain, q) => data.ap[chain] ? data.ap[chain][q] : null;
  const gain = (s, q) => {
    const a = precision(s.after, q), b = precision(s.before, q);
    return a === null || b === null ? null : a - b;
  };

  const choose = s => {
    rows = [];
    for (let q = 0; q < queries; q++) {
      if (s.camera !== "" && data.query.cameras[q] !== +s.camera) continue;
      if (s.find && !data.query.names[q].toLowerCase().includes(s.find)) continue;
      if (s.show === "missed" && (data.hits[s.after][q] === 1 || precision(s.after, q) === null)) continue;
      if (s.show === "up" && !(gain(s, q) > 0)) continue;
      if (s.show === "down" && !(gain(s, q) < 0)) continue;
      rows.push(q);
    }
    const last = value => value === null ? Infinity : value;
    const keys = {
      worst: q => last(precision(s.after, q)),
      best: q => last(precision(s.after, q) === null ? null : -precision(s.after, q)),
      gain: q => last(gain(s, q) === null ? null : -gain(s, q)),
      loss: q => last(gain(s, q)),
      row: q => q,
    };
    const key = new Map(rows.map(q => [q, keys[s.order](q)]));
    rows.sort((a, b) => key.get(a) === key.get(b) ? a - b : key.get(a) - key.get(b));
  };

  const describe = (gallery, kind) => {
    const side = data.gallery;
    const parts = [side.names[gallery]];
    if (known(side.identities, gallery)) parts.push("identity " + called("identities", side.identities[gallery]));
    if (known(side.cameras, gallery)) parts.push("camera " + called("cameras", side.cameras[gallery]));
    if (known(side.tracklets, gallery)) parts.push("tracklet " + side.tracklets[gallery]);
    if (words[kind]) parts.push(words[kind]);
    return parts.join(", ");
  };

  const list = (card, q, chain, title) => {
    const box = make("section", "list");
    const head = make("h3", "", title + ": " + data.chains[chain]);
    const ap = precision(chain, q), hit = data.hits[chain][q];
    if (ap !== null) head.append(make("span", "", "AP " + percent(ap) + (hit ? ", first right at rank " + hit : ", none right in the first 100")));
    const strip = make("div", "strip");
    let rank = 0;
    data.lists[chain][q].forEach((gallery, i) => {
      const kind = +data.kinds[chain][q][i];
      if (kind !== 2) rank++;
      const hitBox = make("button", "hit k" + kind);
      hitBox.type = "button";
      const text = describe(gallery, kind);
      hitBox.title = text;
      hitBox.setAttribute("aria-label", (kind === 2 ? "" : "rank " + rank + ": ") + text);
      hitBox.append(picture(queries + gallery, data.gallery.names[gallery]));
      if (marks[kind]) hitBox.append(make("em", "", marks[kind]));
      const caption = make("span");
      if (kind !== 2) caption.append(make("b", "", String(rank)));
      caption.append(tags(data.gallery, gallery));
      hitBox.append(caption);
      hitBox.addEventListener("click", () => {
        let detail = card.querySelector(".detail");
        if (!detail) card.append(detail = make("p", "detail"));
        detail.textContent = text;
      });
      strip.append(hitBox);
    });
    box.append(head, strip);
    return box;
  };

  const draw = (s, q) => {
    const card = make("article", "card");
    card.tabIndex = -1;
    const who = make("div", "who");
    who.append(picture(q, data.query.names[q]), make("strong", "", data.query.names[q]));
    const side = data.query;
    const facts = [known(side.identities, q) ? "identity " + called("identities", side.identities[q]) : "", tags(side, q)].filter(Boolean);
    who.append(make("span", "", facts.join(" \u00b7 ")));
    const change = gain(s, q);
    if (data.scored) {
      who.append(make("div", "", change === null ? "not scored" : data.positives[q] + " to find"));
      if (change !== null && s.before !== s.after)
        who.append(make("span", "gain " + (change > 0 ? "up" : change < 0 ? "down" : ""), (change > 0 ? "+" : "") + percent(change)));
    }
    const lists = make("div", "lists");
    lists.append(list(card, q, s.before, s.before === s.after ? "Ranking" : "Before"));
    if (s.before !== s.after) lists.append(list(card, q, s.after, "After"));
    card.append(who, lists);
    return card;
  };

  const grow = () => {
    const s = state();
    const part = document.createDocumentFragment();
    for (const q of rows.slice(drawn, drawn + chunk)) part.append(draw(s, q));
    drawn = Math.min(rows.length, drawn + chunk);
    $("cards").append(part);
    $("more").hidden = drawn >= rows.length;
  };
  const refresh = () => {
    choose(state());
    drawn = 0;
    $("cards").replaceChildren();
    $("count").textContent = rows.length + " of " + queries + " queries";
    if (!rows.length) $("cards").append(make("p", "none", "No query fits."));
    grow();
  };

  for (const id of ["before", "after", "order", "camera", "show"]) $(id).addEventListener("change", refresh);
  $("find").addEventListener("input", refresh);
  $("tools").addEventListener("submit", event => event.preventDefault());
  new IntersectionObserver(entries => {
    if (entries.some(entry => entry.isIntersecting) && drawn < rows.length) grow();
  }, { rootMargin: "1200px" }).observe($("more"));

  const turn = (select, by) => {
    const count = select.options.length;
    select.selectedIndex = (select.selectedIndex + by + count) % count;
    refresh();
  };
  const step = by => {
    const cards = [...document.querySelectorAll(".card")];
    const at = cards.indexOf(document.activeElement.closest(".card"));
    const next = cards[at < 0 ? 0 : at + by];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const actions = {
      j: () => step(1), k: () => step(-1), "[": () => turn($("after"), -1), "]": () => turn($("after"), 1),
      s: () => turn($("order"), 1), "/": () => $("find").focus(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });

  refresh();
  document.body.dataset.ready = Math.round(performance.now());
})();

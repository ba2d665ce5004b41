"use strict";
(() => {
  document.getElementById("no-script").remove();
  const all = (selector) => [...document.querySelectorAll(selector)];
  const cells = all("button.cell");
  const tabs = all("button.tab");
  const scrollers = all(".scroller");
  const figures = tabs.map((_, series) => all(`figure.slice[data-series="${series}"]`));
  const caption = document.getElementById("caption");
  const at = tabs.map((tab) => Number(tab.dataset.start));
  let current = 0;

  function show(series, slice) {
    if (!figures[series] || !figures[series].length) return;
    const last = figures[series].length - 1;
    at[series] = Math.min(last, Math.max(0, slice));
    current = series;
    figures.forEach((row, s) => row.forEach((figure, i) => { figure.hidden = s !== series || i !== at[s]; }));
    tabs.forEach((tab, s) => tab.setAttribute("aria-pressed", String(s === series)));
    scrollers.forEach((scroller, s) => { scroller.hidden = s !== series; });
    const range = scrollers[series].querySelector("input");
    range.value = String(at[series]);
    const words = figures[series][at[series]].dataset.caption;
    range.setAttribute("aria-valuetext", `slice ${at[series] + 1} of ${last + 1}, ${words}`);
    const kind = tabs[series].textContent.trim();
    caption.textContent = `${kind}, slice ${at[series] + 1} of ${last + 1}, ${words}`;
  }

  function choose(cell) {
    const name = cell.dataset.target;
    cells.forEach((other) => other.setAttribute("aria-pressed", String(other === cell)));
    document.getElementById("nothing").hidden = true;
    all(".detail").forEach((detail) => { detail.hidden = detail.id !== `detail-${name}`; });
    const crop = document.querySelector(`img[data-crop-of="${name}"]`);
    if (crop && !crop.src) crop.src = cell.querySelector("img").src;
    all("g.point").forEach((point) => point.classList.toggle("current", point.dataset.target === name));
    if (cell.dataset.series !== undefined) show(Number(cell.dataset.series), Number(cell.dataset.slice));
    const viewer = document.getElementById("viewer");
    const box = viewer.getBoundingClientRect();
    if (box.top > window.innerHeight * 0.8 || box.bottom < 80) viewer.scrollIntoView();
  }

  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 5, ArrowUp: -5 };
  cells.forEach((cell, place) => {
    cell.addEventListener("click", () => choose(cell));
    cell.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = place + step;
      const sameRow = Math.floor(next / 5) === Math.floor(place / 5);
      if (cells[next] && (Math.abs(step) === 5 || sameRow)) cells[next].focus();
    });
  });
  tabs.forEach((tab, series) => tab.addEventListener("click", () => show(series, at[series])));
  scrollers.forEach((scroller, series) => {
    scroller.querySelector("input").addEventListener("input", (event) => show(series, Number(event.target.value)));
    scroller.querySelectorAll("button").forEach((button) => {
      button.addEventListener("click", () => show(series, at[series] + Number(button.dataset.step)));
    });
  });
  const slices = document.getElementById("slices");
  if (slices) {
    slices.addEventListener("wheel", (event) => {
      const next = at[current] + Math.sign(event.deltaY);
      // At either end the page scrolls on.
      if (event.ctrlKey || !event.deltaY || next < 0 || next >= figures[current].length) return;
      event.preventDefault();
      show(current, next);
    }, { passive: false });
  }
  const draft = document.getElementById("draft");
  const copy = document.getElementById("copy-draft");
  if (draft && copy) {
    const say = (words) => { document.getElementById("copied").textContent = words; };
    copy.addEventListener("click", () => {
      const selected = () => {
        // A page that is opened as a file may not use the clipboard by itself.
        draft.focus();
        draft.select();
        say(document.execCommand("copy") ? "Copied." : "Selected: copy it with the keyboard.");
      };
      if (!navigator.clipboard) { selected(); return; }
      navigator.clipboard.writeText(draft.value).then(() => say("Copied."), selected);
    });
  }
})();

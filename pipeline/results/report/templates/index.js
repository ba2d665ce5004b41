"use strict";
(() => {
  document.getElementById("no-script").remove();
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("thead th")];
  const search = document.getElementById("search");
  const atLeast = document.getElementById("at-least");
  const warned = document.getElementById("warned");
  const shown = document.getElementById("shown");

  function filter() {
    const text = search.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = row.textContent.toLowerCase().includes(text)
        && Number(row.dataset.worst) >= Number(atLeast.value)
        && (!warned.value || row.dataset.warned === warned.value);
      row.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.textContent = `${count} shown`;
  }

  function sort(column) {
    const head = heads[column];
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => Number(row.cells[column].dataset.sort);
    const sign = down ? -1 : 1;
    rows.sort((a, b) => sign * (key(a) - key(b)) || key(a) - key(b));
    rows.forEach((row) => body.append(row));
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
  [search, atLeast, warned].forEach((field) => field.addEventListener("input", filter));
})();

"use strict";

// Column heads of the table become buttons that sort: upwards, then downwards; empty cells last either way.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th[data-column]")];
  for (const head of heads) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...sorted([...body.rows], Number(head.dataset.column), down));
    });
  }
}

function sorted(rows, column, down) {
  const key = (row) => row.cells[column].dataset.key;
  const full = rows.filter((row) => key(row) !== "");
  const numbers = full.every((row) => Number.isFinite(Number(key(row))));
  const compare = numbers
    ? (a, b) => Number(key(a)) - Number(key(b))
    : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
  full.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
  return [...full, ...rows.filter((row) => key(row) === "")];
}

// The filter keeps the rows whose run and arm contain all the words.
const filter = document.querySelector("#filter");
if (filter) {
  const rows = [...document.querySelector("tbody").rows];
  filter.parentElement.hidden = false;
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = [...row.querySelectorAll("th")].map((cell) => cell.textContent.toLowerCase()).join(" ");
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  });
}

// What scrolls is reached by the keyboard, and what does not is no stop on its way.
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
    target.setAttribute("role", scrolls ? "region" : "group");
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const region of document.querySelectorAll(".scroll")) observer.observe(region);

// Tables of four rows and more sort by a column: its heading becomes a button.
function value(row, column) {
  const text = row.cells[column] ? row.cells[column].textContent.trim() : "";
  const number = parseFloat(text.replace(/,(?=\d{3})/g, "").replace("−", "-"));
  return /^[-−+]?[\d.]/.test(text) && !Number.isNaN(number) ? number : text;
}

function sort(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is not measured comes last
    const kinds = typeof a === "number" && typeof b === "number";
    const order = kinds ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return descending ? -order : order;
  });
  body.append(...rows.map(([, row]) => row));
}

let count = 0;
for (const table of document.querySelectorAll(".bd-article table")) {
  if (table.closest(".cell_output")) continue;
  const box = document.createElement("div");
  box.className = "table-scroll";
  box.tabIndex = 0; // arrow keys scroll it
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", `Table ${(count += 1)}`);
  table.replaceWith(box);
  box.append(table);
  const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
  if (!table.tBodies[0] || table.tBodies[0].rows.length < 4) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    if (!button.textContent.trim()) return;
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, column, descending);
    });
  });
}

// What opens a part of the contents has no name of its own: the part's.
for (const summary of document.querySelectorAll(".bd-sidenav summary")) {
  const part = summary.closest("li").querySelector("a").textContent.trim();
  summary.setAttribute("aria-label", `Pages of: ${part}`);
}

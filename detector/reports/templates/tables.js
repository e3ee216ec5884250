// Tables sort by a click on a column's name; figures between shares and counts by a button.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const cell = button.parentElement, body = cell.closest("table").tBodies[0];
    const column = cell.cellIndex, down = cell.dataset.order !== "down";
    const value = row => row.cells[column].textContent.trim();
    const number = text => parseFloat(text.replaceAll(",", ""));
    const order = (a, b) => {
      const [x, y] = [number(value(a)), number(value(b))];
      if (Number.isNaN(x) && Number.isNaN(y)) return value(a).localeCompare(value(b));
      return Number.isNaN(x) ? -1 : Number.isNaN(y) ? 1 : x - y;
    };
    const sorted = [...body.rows].sort((a, b) => down ? order(b, a) : order(a, b));
    for (const other of cell.parentElement.cells) { delete other.dataset.order; other.removeAttribute("aria-sort"); }
    cell.dataset.order = down ? "down" : "up";
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...sorted);
  });
}

// Sorting, unfolding and copying. Without this script everything is unfolded and in the order of the study.
document.documentElement.classList.add("js");
addEventListener("DOMContentLoaded", () => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const panelOf = (cell) => document.getElementById(cell.getAttribute("aria-controls"));
  const unfold = (cell, open) => {
    cell.setAttribute("aria-expanded", open);
    panelOf(cell).classList.toggle("open", open);
  };
  const isOpen = (cell) => cell.getAttribute("aria-expanded") === "true";
  for (const cell of all(".cell")) {
    unfold(cell, false);
    cell.addEventListener("click", () => unfold(cell, !isOpen(cell)));
  }
  for (const button of all(".all")) {
    const cells = all(".cell", document.getElementById(button.getAttribute("aria-controls")));
    button.hidden = false;
    button.addEventListener("click", () => {
      const open = !cells.every(isOpen);
      cells.forEach((cell) => unfold(cell, open));
    });
  }

  const follow = () => {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (const cell of all(".cell").filter((cell) => panelOf(cell) === place)) {
      unfold(cell, true);
      cell.scrollIntoView();
    }
  };
  addEventListener("hashchange", follow);
  follow();

  // What a row is sorted by: text, or the first figure; null where there is none, which comes last either way.
  const key = (body, header) => {
    const text = body.rows[0].cells[header.cellIndex].textContent.trim();
    const value = header.classList.contains("number") ? parseFloat(text.replaceAll("−", "-")) : text;
    return Number.isNaN(value) || text === "–" ? null : value;
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
  for (const header of all("th[aria-sort]")) {
    header.firstElementChild.addEventListener("click", () => {
      const orders = header.classList.contains("number") ? ["descending", "ascending"] : ["ascending", "descending"];
      const order = header.getAttribute("aria-sort") === orders[0] ? orders[1] : orders[0];
      const [sign, table] = [order === "ascending" ? 1 : -1, header.closest("table")];
      all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", order);
      const bodies = [...table.tBodies].map((body) => [key(body, header), body]);
      bodies.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
      table.append(...bodies.map(([, body]) => body));
    });
  }

  for (const place of all(".commands")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "plain", textContent: "Copy" });
    const pre = place.querySelector("pre");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent.trim());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(pre);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    place.append(button);
  }

  const printing = (open) => all("details").forEach((part) => {
    if (open) part.dataset.was = part.open;
    part.open = open || part.dataset.was === "true";
  });
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
});

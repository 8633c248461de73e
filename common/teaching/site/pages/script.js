// A click on a line's number lights the line up in both columns, and says what is known of it.
"use strict";
const said = document.getElementById("said");
for (const button of document.querySelectorAll(".code th button")) {
  button.addEventListener("click", () => {
    const row = button.closest("tr"), lit = row.classList.contains("lit");
    for (const other of document.querySelectorAll(".code tr.lit")) {
      other.classList.remove("lit");
      other.querySelector("button").setAttribute("aria-pressed", "false");
    }
    if (!lit) row.classList.add("lit");
    button.setAttribute("aria-pressed", String(!lit));
    if (said) said.textContent = lit ? "" : button.dataset.said || "The same in both, or no layer.";
  });
}
// The table of variants: only those whose name has the word.
const filter = document.getElementById("filter");
if (filter) {
  filter.hidden = false;
  filter.addEventListener("input", () => {
    for (const row of document.querySelectorAll("tr[data-name]")) row.hidden = !row.dataset.name.includes(filter.value.trim().toLowerCase());
  });
}
const every = document.getElementById("every");
if (every) {
  every.hidden = false;
  every.addEventListener("click", () => {
    const open = every.getAttribute("aria-pressed") !== "true";
    every.setAttribute("aria-pressed", String(open));
    for (const card of document.querySelectorAll(".card details")) card.open = open;
  });
}

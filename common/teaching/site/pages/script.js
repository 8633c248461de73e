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
// An answer that is chosen before anything is opened: a lesson says whether it is the right one.
for (const list of document.querySelectorAll("ol[data-right]")) {
  const said = list.nextElementSibling, folded = said.nextElementSibling;
  [...list.children].forEach((answer, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...answer.childNodes);
    answer.append(button);
    button.addEventListener("click", () => {
      for (const other of list.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      said.textContent = i === Number(list.dataset.right) ? `Yes, ${"abc"[i]}.` : `Not ${"abc"[i]}. What is measured says why.`;
      folded.open = true;
    });
  });
}
// The table of variants: only those whose name has the word.
const only = document.getElementById("only");
if (only) {
  const filter = only.querySelector("input");
  only.hidden = false;
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
// What is folded is printed: style.css says so, and this for browsers that don't know it.
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    window.addEventListener("afterprint", () => { folded.open = false; }, { once: true });
  }
});
// Two variants that somebody chooses, filled into the page's template of a pair.
const compared = document.getElementById("compared");
if (compared) {
  const { fields, families, variants } = JSON.parse(compared.textContent), COSTS = 5;
  const form = document.getElementById("choose"), chosen = document.getElementById("chosen");
  const made = (tag, kind, ...inside) => {
    const element = document.createElement(tag);
    element.className = kind;
    element.append(...inside);
    return element;
  };
  const head = (text, rowSpan, ...inside) => Object.assign(made("th", "", text, ...inside), { scope: "row", rowSpan });
  const fill = () => {
    const names = [form.left.value, form.right.value], [one, other] = names.map((name) => variants[name]);
    chosen.replaceChildren(document.getElementById("two").content.cloneNode(true));
    chosen.querySelectorAll("figure").forEach((figure, i) => {
      const link = figure.querySelector("a"), image = figure.querySelector("img");
      link.textContent = names[i];
      link.href = `variant-${names[i]}.html`;
      image.src = `net-${names[i]}.svg`;
      image.alt = `The stages of ${names[i]}, drawn; the table has them`;
    });
    chosen.querySelector(".wide").ariaLabel = `Stages of ${names.join(" and ")}`;
    chosen.querySelectorAll(".fields thead th + th").forEach((th, i) => { th.textContent = names[i]; });
    const [parameters, adds] = [2, 4].map((i) => (other.stages["in all"][i] / one.stages["in all"][i]).toFixed(2));
    chosen.querySelector(".times").textContent = `${names[1]} has ${parameters} times the parameters of ${names[0]}, and ${adds} times its multiply-adds.`;
    const differ = Object.keys(fields).filter((field) => one.fields[field] !== other.fields[field]);
    chosen.querySelector(".fields tbody").replaceChildren(...differ.map((field) => made("tr", "",
      head(made("code", "", field), 1, ...(fields[field] ? [" ", made("small", "", fields[field])] : [])), made("td", "", one.fields[field]), made("td", "", other.fields[field]))));
    if (!differ.length) chosen.querySelector(".fields tbody").append(made("tr", "", head("none: it is one net", 1), made("td", ""), made("td", "")));
    const costs = (name, mine, others) => [made("td", "", name), ...(mine || Array(COSTS).fill("none")).map((value, i) =>
      made("td", others && value === others[i] ? "" : "differs", value.toLocaleString("en")))];
    const stages = new Set([...Object.keys(one.stages), ...Object.keys(other.stages)]);
    for (const last of ["head", "in all"]) { stages.delete(last); stages.add(last); }
    chosen.querySelector(".stages tbody").replaceChildren(...[...stages].flatMap((stage) => [
      made("tr", "", head(stage, 2), ...costs(names[0], one.stages[stage], other.stages[stage])),
      made("tr", "", ...costs(names[1], other.stages[stage], one.stages[stage]))]));
  };
  for (const select of form.querySelectorAll("select")) {
    for (const [family, names] of Object.entries(families)) {
      const group = Object.assign(document.createElement("optgroup"), { label: family });
      group.append(...names.map((name) => new Option(name)));
      select.append(group);
    }
  }
  const asked = () => {
    const [left, right] = location.hash.slice(1).split(",");
    if (!(left in variants)) return;
    form.left.value = left;
    if (right in variants) form.right.value = right;
    fill();
  };
  form.right.selectedIndex = Math.min(1, form.right.length - 1);
  form.hidden = false;
  fill();
  asked();
  window.addEventListener("hashchange", asked);
  form.addEventListener("change", () => { history.replaceState(null, "", `#${form.left.value},${form.right.value}`); fill(); });
}

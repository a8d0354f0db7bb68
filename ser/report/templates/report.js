"use strict";
// Draws the figures, and shows the chosen fold. All numbers come from the page.
const settings = { responsive: true, displayModeBar: false, showTips: false };
const drawn = [...document.querySelectorAll("script.figure")].map((script) => {
  const figure = JSON.parse(script.textContent);
  return Plotly.newPlot(document.getElementById(script.dataset.of), figure.data, figure.layout, settings);
});

function showMatrix(id, number) {
  const state = JSON.parse(document.getElementById(`${id}-states`).textContent)[number];
  document.getElementById(`${id}-says`).textContent = state.description;
  const cells = document.querySelectorAll(`#${id}-table td`);
  state.cells.flat().forEach((text, position) => { cells[position].textContent = text; });
  return Plotly.restyle(id, { z: [state.z] }, [0])
    .then(() => Plotly.restyle(id, { text: [state.text], "textfont.color": [state.ink] }, [1]));
}

function highlightRun(id, run) {
  const opacity = document.getElementById(id).data.map((trace) => (run === "" || trace.meta === run ? 1 : 0.12));
  return Plotly.restyle(id, { opacity });
}

const choose = { matrix: showMatrix, curves: highlightRun };
for (const select of document.querySelectorAll("select[data-of]")) {
  select.addEventListener("change", () => choose[select.dataset.kind](select.dataset.of, select.value));
}

Promise.all(drawn).then(() => { document.body.dataset.drawn = "yes"; });

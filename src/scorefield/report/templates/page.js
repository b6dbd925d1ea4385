(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = Array.from(document.querySelectorAll("script[data-plot]"), (script) => ({
    place: document.getElementById(script.dataset.plot),
    figure: JSON.parse(script.textContent),
  }));
  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
    };
  }
  function draw() {
    for (const { place, figure } of plots) {
      Plotly.react(place, figure.data, themed(figure.layout), {
        displayModeBar: false,
        responsive: true,
      });
    }
  }
  draw();
  dark.addEventListener("change", draw);
  for (const button of document.querySelectorAll(".cmd button")) {
    button.addEventListener("click", () => {
      const code = button.previousElementSibling;
      const done = () => {
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      };
      if (navigator.clipboard) {
        navigator.clipboard.writeText(code.textContent).then(done);
        return;
      }
      // A page opened from a file may have no clipboard: mark the text instead.
      const range = document.createRange();
      range.selectNodeContents(code);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
    });
  }
})();

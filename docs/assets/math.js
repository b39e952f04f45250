// Formulas are typeset here, by KaTeX: at first, and after each page that is loaded without leaving the site.
document$.subscribe(() => {
  for (const place of document.querySelectorAll(".arithmatex")) {
    const formula = place.textContent.trim();
    const display = formula.startsWith("\\[");
    katex.render(formula.slice(2, -2), place, { displayMode: display, throwOnError: false });
  }
});

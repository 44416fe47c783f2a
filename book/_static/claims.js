// Filter of the claims ledger, by verdict and by section. Without it, every claim is shown.
document.addEventListener("DOMContentLoaded", () => {
  const cards = [...document.querySelectorAll(".claim")];
  if (!cards.length) return;

  const classOf = (card, prefix) => [...card.classList].find((name) => name.startsWith(prefix));
  const verdicts = new Map(
    cards.map((card) => [classOf(card, "verdict-"), card.querySelector(".verdict").textContent]),
  );
  const sections = new Map(
    cards.map((card) => {
      const heading = card.parentElement.querySelector("h1, h2, h3");
      return [classOf(card, "in-"), heading.firstChild.textContent];
    }),
  );

  const select = (text, choices) => {
    const label = document.createElement("label");
    const list = document.createElement("select");
    list.append(new Option("all", ""));
    for (const [value, name] of choices) list.append(new Option(name, value));
    label.append(text, list);
    list.addEventListener("change", apply);
    return [label, list];
  };
  const [verdictLabel, verdict] = select("Verdict", verdicts);
  const [sectionLabel, section] = select("Section", sections);
  const count = document.createElement("output");
  const bar = document.createElement("div");
  bar.className = "claims-filter";
  bar.append(verdictLabel, sectionLabel, count);
  cards[0].parentElement.before(bar);

  function apply() {
    let shown = 0;
    for (const card of cards) {
      const fits = [verdict, section].every((s) => !s.value || card.classList.contains(s.value));
      card.classList.toggle("claim-hidden", !fits);
      shown += fits;
    }
    for (const part of new Set(cards.map((card) => card.parentElement))) {
      part.classList.toggle("claim-hidden", !part.querySelector(".claim:not(.claim-hidden)"));
    }
    count.textContent = `${shown} of ${cards.length} claims`;
  }
  function showTarget() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target || !target.classList.contains("claim-hidden")) return;
    verdict.value = section.value = "";
    apply();
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", showTarget);
  apply();
});
